"""The HTTP adapter: schemas, routes, errors and middleware. Nothing here decides how to rank."""
