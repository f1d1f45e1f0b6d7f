"""Scrubbing a fine-tuned network by its tangent kernel: Figures 1 to 4 of paper 004.

Command:   python -m experiments.ntk_scrubbing --scale cpu --data-dir DIR
Time:      smoke 20 s (digits), cpu under 15 minutes on two cores (CIFAR-10); paper needs an
           accelerator.
Expected:  the original network errs on none of the forget set and relearns it at once; NTK
           scrubbing moves error, relearn time and outputs towards the retrained network's at
           little test error, Fisher noise alone does not reach them before it hurts the rest.
"""
