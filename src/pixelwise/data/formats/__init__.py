"""One file per format on disk; `pixelwise.data.spec` finds them by file name, `-` written as `_`."""
