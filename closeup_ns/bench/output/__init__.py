"""The output of a bench: comparisons, tables, plots, pictures, and the page that shows them."""
