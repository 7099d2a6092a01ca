"""The kinds of product that are drawn, grouped by where a shop would shelve them."""
