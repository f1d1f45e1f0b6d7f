"""Data forging (paper 000): its Tables 1 to 3 and Figures 2 to 4, and audits of a forged log."""
