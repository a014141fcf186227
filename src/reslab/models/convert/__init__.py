"""Import weights from other libraries, and export weights for them."""
