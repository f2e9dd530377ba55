"""Network parts that unrelated systems share."""
