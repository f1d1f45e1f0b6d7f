"""Data forging: Tables 1 to 3, Figures 2 to 4 of Suliman et al. 2024; audits of a forged log."""
