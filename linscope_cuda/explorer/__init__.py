"""Touch a pixel and see what it does: frozen networks in a browser, in a notebook, in one file."""
