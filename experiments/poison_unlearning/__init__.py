"""Unlearning poisons, and why it fails: Figures 2 to 9 and Table 2 of paper 002, for vision.

Command:   python -m experiments.poison_unlearning --scale cpu --data-dir DIR
           python -m experiments.poison_unlearning --scale cpu --part page   (the page from results)
Time:      smoke: of compilation (digits). cpu: 33 minutes on one core (CIFAR-10, 2,500 images, a
           small network). paper: an accelerator.
Expected:  the network that trained on Gaussian poisons gives them away by its GUS and the retrained
           one does not; poisons shift a regression further than as many clean samples do, and clean
           gradients do not lead back. Targeted and indiscriminate poisons hardly show in the small
           network. The page says of each claim whether it holds.
"""
