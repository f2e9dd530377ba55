"""The functions of `pixelwise data …`; they use formats by their protocol alone."""
