"""One file for each system, named as its paper names it; found by file name, without a registry."""
