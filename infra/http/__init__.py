"""The wire: requests leave through the evidence transport, judged by the egress guard, and are recorded."""

from __future__ import annotations

from infra.http.addresses import judge_address
from infra.http.egress import EgressGuard, EgressRefused
from infra.http.fetch import fetch
from infra.http.transport import EvidenceTransport

__all__ = ["EgressGuard", "EgressRefused", "EvidenceTransport", "fetch", "judge_address"]
