"""The matrix of the product as data: what clients ask, what providers reply, what is between."""
