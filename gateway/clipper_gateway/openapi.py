def openapi_routes() -> list:
    return []
