"""Rows to search among: every state, ties and gaps in every order, corrections, late clicks, redirects and failures."""

from __future__ import annotations

from tests.integration.ground import Ground, contract, generic_url

NOWHERE = generic_url("http://127.0.0.1:9")
PARTITIONS = "CREATE TABLE IF NOT EXISTS {0}_{1} PARTITION OF {0} FOR VALUES FROM ('{2}') TO ('{3}')"
MONTHS = (("2026_07", "2026-07-01", "2026-08-01"), ("2026_08", "2026-08-01", "2026-09-01"))

# One conversion a minute from the given instant on; the remainders of their numbers decide what each is.
_CONVERSIONS = """
    INSERT INTO conversions (source, event_id, name, order_id, click_ids, occurred_at, received_at, value, net_value,
        currency, routed, lead_id, customer_id, event)
    SELECT CASE WHEN n % 97 = 0 THEN 'rare' ELSE 'shop' END, :label || n, 'purchase', :label || 'o' || n / 2,
        ARRAY['click-' || :label || n], at, at, value, value, 'EUR', 1, 'lead' || n, 'customer' || n / 10,
        json_build_object('version', 1, 'type', 'conversion', 'event_id', :label || n, 'source', 'shop', 'name', 'purchase',
            'occurred_at', at, 'order_id', :label || 'o' || n / 2, 'value', value::text, 'currency', 'EUR',
            'click_ids', json_build_object('generic', 'click-' || :label || n))
    FROM generate_series(1, :n) n,
        LATERAL (SELECT CAST(:since AS timestamptz) + n * interval '1 minute' AS at,
            CASE WHEN n % 11 = 0 THEN NULL WHEN n % 101 = 0 THEN 5000 ELSE round(5 + n * 7 % 90, 2) END AS value) made"""
_POSTBACKS = """
    INSERT INTO postbacks (conversion_id, version_id, state, release_at, due_at, attempts, void_reason, lease_token,
        duplicate_of, reason, lost_at, lost)
    SELECT c.id, (SELECT max(id) FROM destination_versions WHERE destination = CASE WHEN n % 50 = 0 THEN 'seldom' WHEN n % 3 = 0 THEN 'second' ELSE 'first' END),
        state, c.received_at, CASE WHEN state IN ('held', 'retrying', 'leased', 'firing')
            THEN CASE WHEN n % 14 = 2 THEN 'infinity' ELSE date_trunc('hour', c.received_at) + interval '30 days' END END,
        n % 4, CASE WHEN state = 'voided' THEN 'refunded' END, CASE WHEN state IN ('leased', 'firing') THEN 1 END,
        CASE WHEN state = 'duplicate' THEN 1 END, 'n ' || n,
        CASE WHEN state = 'delivered' AND n % 17 = 0 THEN c.received_at END, CASE WHEN state = 'delivered' AND n % 17 = 0 THEN 1 END
    FROM conversions c, LATERAL (SELECT CAST(substr(c.event_id, length(:label) + 1) AS integer) AS n) numbered,
        LATERAL (SELECT CASE WHEN n % 2 = 1 THEN 'delivered'
            ELSE (ARRAY['held', 'held', 'retrying', 'leased', 'firing', 'rejected', 'dead', 'voided', 'expired', 'in_doubt',
                'duplicate'])[1 + n / 2 % 11] END AS state) made
    WHERE c.event_id LIKE :label || '%' ORDER BY c.id"""
_AFTERWARDS = """
    INSERT INTO postbacks (conversion_id, version_id, state, release_at, due_at, adjusts, adjustment, afterwards)
    SELECT p.conversion_id, p.version_id, 'held', now(), now() + interval '1 day',
        CASE WHEN n % 4 = 3 THEN p.id END, CASE WHEN n % 4 = 3 THEN 'retraction' END, true
    FROM postbacks p JOIN conversions c ON c.id = p.conversion_id,
        LATERAL (SELECT CAST(substr(c.event_id, length(:label) + 1) AS integer) AS n) numbered
    WHERE c.event_id LIKE :label || '%' AND p.state = 'delivered' AND n % 19 = 0
        AND NOT p.afterwards ORDER BY p.id"""
_ATTEMPTS = """
    WITH made AS (
        SELECT nextval('attempt_ids') AS id, p.id AS postback_id, p.version_id, a AS number,
            c.received_at + a * interval '1 hour' AS at, p.attempts, p.state, n
        FROM postbacks p JOIN conversions c ON c.id = p.conversion_id, generate_series(1, p.attempts) a,
            LATERAL (SELECT CAST(substr(c.event_id, length(:label) + 1) AS integer) AS n) numbered
        WHERE c.event_id LIKE :label || '%' AND NOT p.afterwards ORDER BY p.id, a),
    intent AS (
        INSERT INTO intents (attempt_id, postback_id, number, intent_at, worker, url)
        SELECT id, postback_id, number, at, 'node-a:1', 'https://host.example/p' FROM made),
    hop AS (
        INSERT INTO hops (attempt_id, intent_at, started_at, body_length, number, status_code, truncated, method, url,
            request_head, request_body, addresses, response_head, body, failure)
        SELECT id, at, at, 2, h, CASE WHEN n % 9 = 0 AND number < attempts THEN NULL WHEN h < hops THEN 302
                WHEN number < attempts OR state = 'dead' THEN 503 ELSE 200 END,
            false, 'GET', 'https://host.example/p?click_id=click-' || :label || n,
            convert_to('GET /p?n=' || n || ' HTTP/1.1' || chr(13) || chr(10), 'UTF8'), '', '203.0.113.7',
            convert_to('HTTP/1.1', 'UTF8'), convert_to(CASE WHEN n % 41 = 0 THEN 'fehler: ungültig' ELSE 'ok' END, 'UTF8'),
            CASE WHEN n % 9 = 0 AND number < attempts THEN 'timeout: none within 10 s' END
        FROM made, LATERAL (SELECT CASE WHEN n % 83 = 0 THEN 2 ELSE 1 END AS hops) m, generate_series(1, hops) h)
    INSERT INTO attempts (id, postback_id, version_id, number, status_code, intent_at, ended_at, trigger, worker,
        worker_version, verdict, rule, state, error_class)
    SELECT id, postback_id, version_id, number,
        CASE WHEN n % 9 = 0 AND number < attempts THEN NULL WHEN number < attempts OR state = 'dead' THEN 503 ELSE 200 END,
        at, at + interval '1 second', CASE WHEN number = 1 THEN 'release' ELSE 'retry' END, 'node-a:1', '1',
        CASE WHEN n % 9 = 0 AND number < attempts THEN 'unknown' WHEN number < attempts OR state = 'dead' THEN 'retry' ELSE 'delivered' END,
        CASE WHEN n % 9 = 0 AND number < attempts THEN 'timeout after the request was sent' ELSE 'status' END,
        CASE WHEN number < attempts THEN 'retrying' ELSE state END,
        CASE WHEN n % 9 = 0 AND number < attempts THEN 'TimeoutError' END
    FROM made"""
STEPS = (_CONVERSIONS, _POSTBACKS, _AFTERWARDS, _ATTEMPTS)


def prepare(ground: Ground) -> None:
    """Three destinations at two networks, and months that are past."""
    ground.apply(
        contract("first", NOWHERE),
        contract("second", NOWHERE),
        contract("seldom", "https://ib.adnxs.example/px", network="xandr", settings={"id": "1"}),
    )
    for table in ("intents", "attempts", "hops", "checks"):
        for month in MONTHS:
            ground.run(PARTITIONS.format(table, *month))


def add(ground: Ground, label: str, count: int, since: str) -> None:
    """``count`` conversions from ``since`` on, one a minute, with all that belongs to them."""
    for step in STEPS:
        values = {"label": label, "n": count, "since": since}
        ground.run(step, **{name: value for name, value in values.items() if f":{name}" in step})
