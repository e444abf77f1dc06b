"""The OpenAPI document of what FastAPI does not serve itself: ``POST /v1/events``."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.responses import Response

from producers.door.events import PATH
from producers.door.reading import MAX_EVENTS
from schemas.event import json_schema
from schemas.keys import SIGNATURE_TOLERANCE_S

PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457 problem details",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "stable, for programs"},
        "detail": {"type": "string", "description": "the reason and the remedy"},
        "request_id": {"type": "string"},
    },
}
ENTRY_PROBLEM: dict[str, Any] = {
    "type": "object",
    "required": ["code", "field", "reason", "remedy"],
    "properties": {name: {"type": "string"} for name in ("code", "field", "reason", "remedy")},
}
ANSWER: dict[str, Any] = {
    "type": "object",
    "required": ["request_id", "accepted", "duplicates", "rejected"],
    "properties": {
        "request_id": {"type": "string", "pattern": "^in_[0-9]+$"},
        "accepted": {"type": "integer", "minimum": 0, "maximum": MAX_EVENTS},
        "duplicates": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["index", "source", "event_id"],
                "properties": {
                    "index": {"type": "integer"},
                    "source": {"type": "string"},
                    "event_id": {"type": "string"},
                },
            },
        },
        "rejected": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["index", "problems"],
                "properties": {
                    "index": {"type": "integer"},
                    "problems": {"type": "array", "items": ENTRY_PROBLEM},
                },
            },
        },
    },
}
_RETRY_AFTER = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}


def unauthorized() -> dict[str, Any]:
    """The documented refusal of a caller that cannot be told."""
    return problem("Credentials are missing, wrong, expired or revoked") | {
        "headers": {"WWW-Authenticate": {"schema": {"type": "string"}, "required": True}}
    }


def problem(description: str, *, retry_after: bool = False) -> dict[str, Any]:
    """A documented refusal."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": description, "content": content} | (
        {"headers": _RETRY_AFTER} if retry_after else {}
    )


METRICS: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        200: {
            "description": "Prometheus' text format",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    },
}
_SECURITY_SCHEMES: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, `hf_…`"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key, `hf_…`"},
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Holdfire-Signature",
        "description": (
            "`t=<unix seconds>,key=<id>,v1=<hex>`: HMAC-SHA256 of `<t>.<body>`, the body as it travels, keyed by the "
            f"whole text of a key made with `--hmac`. Good for {SIGNATURE_TOLERANCE_S} seconds"
        ),
    },
}
SECURITY: list[dict[str, list[str]]] = [{name: []} for name in _SECURITY_SCHEMES]
"""Any one of them will do."""


def describe(api: FastAPI) -> None:
    """Put the events route and its schemas into the document. The route itself is served before FastAPI is asked."""
    events = json_schema()
    schemas = events.pop("$defs") | {"Event": events, "Problem": PROBLEM, "EventsAnswer": ANSWER}
    schemas = _pointing_to_components(schemas)
    event = {"$ref": "#/components/schemas/Event"}
    api.add_api_route(
        PATH,
        _served_elsewhere,
        methods=["POST"],
        status_code=202,
        tags=["events"],
        summary="Take conversion events and signals",
        description=(
            f"One event, a list of up to {MAX_EVENTS}, or NDJSON; gzip and deflate are read. A list is taken in part: "
            "`rejected` says by index what was not taken and why. 202 means that the request and its events are "
            "committed. `Idempotency-Key` gives a repeated request the first one's answer."
        ),
        response_class=Response,
        responses={
            202: {
                "description": "Committed: accepted, known before, or refused with the reason, each by its index",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/EventsAnswer"}}},
            },
            400: problem("The body cannot be read as events"),
            401: unauthorized(),
            408: problem("The body did not come in time"),
            413: problem("Too large, or too many events"),
            415: problem("A content type or coding that is not read"),
            422: problem("No event could be taken, or the Idempotency-Key was used for another body"),
            429: problem("Too many requests under this key", retry_after=True),
            503: problem("Nothing was taken; send it again", retry_after=True),
        },
        openapi_extra={
            "parameters": [
                {
                    "name": "Idempotency-Key",
                    "in": "header",
                    "required": False,
                    "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"},
                }
            ],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {
                            "oneOf": [
                                event,
                                {"type": "array", "items": event, "minItems": 1, "maxItems": MAX_EVENTS},
                            ]
                        }
                    },
                    "application/x-ndjson": {"schema": {"type": "string", "description": "one event a line"}},
                },
            },
            "security": SECURITY,
        },
    )
    _with_components(api, schemas)


def _with_components(api: FastAPI, schemas: dict[str, Any]) -> None:
    generate = api.openapi

    def openapi() -> dict[str, Any]:
        if api.openapi_schema is None:
            document = generate()
            components = document.setdefault("components", {})
            components.setdefault("schemas", {}).update(schemas)
            components["securitySchemes"] = _SECURITY_SCHEMES
            api.openapi_schema = document
        return api.openapi_schema

    api.openapi = openapi  # type: ignore[method-assign] # FastAPI's own way of extending the document


def _pointing_to_components(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: each.replace("#/$defs/", "#/components/schemas/")
            if key == "$ref"
            else _mapping(each)
            if key == "mapping"
            else _pointing_to_components(each)
            for key, each in value.items()
        }
    return [_pointing_to_components(each) for each in value] if isinstance(value, list) else value


def _mapping(value: dict[str, str]) -> dict[str, str]:
    return {key: each.replace("#/$defs/", "#/components/schemas/") for key, each in value.items()}


async def _served_elsewhere() -> Response:
    raise AssertionError("the events route is served before FastAPI is asked")
