"""What `pixelwise data …` calls; formats are known by their protocol alone."""
