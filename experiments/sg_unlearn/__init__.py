"""SG-Unlearn (Di et al. 2024): its Tables 1, 2, 4 and 6 and its Figures 1 to 5."""
