"""Unlearning poisons, and why it fails: Figures 2 to 9 of Pawelczyk et al. 2024, for vision.

Command:   python -m experiments.poison_unlearning --scale cpu --data-dir DIR
           python -m experiments.poison_unlearning --scale cpu --part page   (the page from results)
Time:      smoke: of compilation (digits). cpu, on one core: CIFAR-10 (2,500 images, a small CNN) 32
           minutes, MNIST (6,000 images, an MLP) 10. paper: an accelerator.
Expected:  all kinds of poisons show in the network that trained on them and not after Retrain, and
           no method removes all of them for a tenth of its cost: surely so on MNIST, where there
           are more poisons. Poisons shift a regression further than as many clean samples do, and
           clean gradients do not lead back. The page says of each claim whether it holds.
"""
