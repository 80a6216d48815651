"""The model gateway: the only holder of provider keys, and the place where limits bind."""
