"""FastAPI on uvicorn: the model is called in the handler, one row a call; no batches.

python -m uvicorn fastapi_digits:app
"""

import sys
from pathlib import Path

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from models import digits

app = FastAPI()


class Query(BaseModel):
    """One row."""

    input: list[float]


@app.post("/predict")
async def predict(query: Query) -> dict[str, int]:
    """Label of the row."""
    return {"output": int(digits(np.array([query.input], np.float32))[0])}
