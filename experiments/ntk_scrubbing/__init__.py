"""Scrubbing a fine-tuned network by its tangent kernel: Figures 1 to 4 of Golatkar et al. 2020b.

Command:   python -m experiments.ntk_scrubbing --scale cpu --data-dir DIR
Time:      smoke under a minute (digits), cpu about 15 minutes on one core (CIFAR-10); paper needs
           an accelerator.
Expected:  the original network errs on none of the forget set and relearns it at once; NTK
           scrubbing moves error, relearn time and outputs most of the way to the retrained
           network's at no test error; Fisher noise alone hurts the rest before it gets there, and
           the trapezium overshoots where the linearisation at the trained weights needs no help.
"""
