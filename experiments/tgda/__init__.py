"""TGDA (Lu et al. 2022): its Tables 2 to 9, 12 and 13 and its Figures 1 and 3 to 5."""
