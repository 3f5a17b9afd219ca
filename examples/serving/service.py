"""A service in thirty lines: a list for a history, new items, and another model, all while it serves.

MODEL=model/ uvicorn service:app --port 8000                       (in this folder; a model that `mecold fit` wrote)
curl -X POST localhost:8000/recommend -H 'Content-Type: application/json' -d '{"history": ["p1", "p2"], "k": 5}'
"""

import os
from typing import Any

import polars as pl
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from mecold import MecoldError, Recommender

app = FastAPI()
app.state.recommender = Recommender.load(os.environ["MODEL"])  # in each worker: load after the fork


class Asked(BaseModel):
    """What a client sends."""

    history: list[str]
    k: int = 10


@app.exception_handler(MecoldError)
def refused(_: Request, error: MecoldError) -> JSONResponse:
    return JSONResponse({"error": str(error)}, status_code=400)


@app.post("/recommend")
def recommend(asked: Asked) -> list[dict[str, Any]]:
    recommender = app.state.recommender  # one model for the whole request, whoever puts in another meanwhile
    user = recommender.adapt_user(asked.history, on_unknown="drop")
    return [one._asdict() for one in recommender.recommend(user, k=asked.k)]


@app.post("/items")
def add(items: list[dict[str, str]]) -> int:
    app.state.recommender.add_items(pl.DataFrame(items))
    return len(app.state.recommender.item_ids())


@app.post("/model")
def swap(folder: str) -> str:
    app.state.recommender = Recommender.load(folder)
    return str(app.state.recommender.info()["model"])
