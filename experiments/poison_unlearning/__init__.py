"""Unlearning poisons, and why it fails: Figures 2 to 9 and Table 2 of paper 002, for vision.

Command:   python -m experiments.poison_unlearning --scale cpu --data-dir DIR
           python -m experiments.poison_unlearning --scale cpu --part page   (the page from results)
Time:      smoke: of compilation (digits). cpu: laid out for half an hour on two cores (CIFAR-10, a
           small network), by counts of example-gradients. paper: an accelerator.
Expected:  the network that trained on Gaussian poisons gives them away and the retrained one does
           not; at a tenth of Retrain's cost no method removes all three kinds of poisons. The page
           says of each claim whether it holds.
"""
