"""Pure functions of tensors and arrays, without types of our own."""
