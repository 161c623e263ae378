"""How results are printed, one file a rendering."""
