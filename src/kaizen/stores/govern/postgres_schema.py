"""The tables of keys and accounts in PostgreSQL, and the function that does a batch."""

from __future__ import annotations

from typing import Final

from kaizen.stores.govern.wire import NEVER_MS

# Part n of the list takes a database from version n to n + 1; what is released is never edited.
TABLES: Final = (
    """
    CREATE TABLE accounts (
        tenant text NOT NULL, account text NOT NULL, requests bigint, tokens bigint, at bigint NOT NULL DEFAULT 0,
        day integer NOT NULL DEFAULT 0, usd_day bigint NOT NULL DEFAULT 0,
        month integer NOT NULL DEFAULT 0, usd_month bigint NOT NULL DEFAULT 0,
        PRIMARY KEY (tenant, account)) WITH (fillfactor = 50);
    CREATE TABLE air (
        tenant text NOT NULL, account text NOT NULL, holder text NOT NULL, calls bigint NOT NULL, until bigint NOT NULL,
        PRIMARY KEY (tenant, account, holder)) WITH (fillfactor = 50);
    CREATE TABLE waiting (
        id text PRIMARY KEY, tenant text NOT NULL, holder text NOT NULL, until bigint NOT NULL, back text NOT NULL);
    CREATE INDEX waiting_until ON waiting (until);
    CREATE TABLE keys (
        id text PRIMARY KEY, tenant text NOT NULL, environment text NOT NULL, digest bytea NOT NULL, previous bytea,
        previous_until double precision, created_at double precision NOT NULL, expires_at double precision,
        revoked_at double precision, last_used_at double precision, about text NOT NULL);
    CREATE INDEX keys_tenant ON keys (tenant, created_at);
    """,
)

# One batch; see ``book.py`` for what it does and ``wire.py`` for its form. The locks come in one order everywhere, so
# no two batches can wait for each other: first the rows of ``waiting`` (its sweeper skips what is locked), then the
# rows of ``accounts``, new ones before those that were there, both in the order of ``names``.
BATCH: Final = """
CREATE OR REPLACE FUNCTION quota_batch(
    who text, hold bigint, tenants text[], names text[], batch jsonb, beat boolean, at_ms bigint) RETURNS jsonb
LANGUAGE plpgsql AS $$
DECLARE
    op jsonb; claim jsonb; kept record; lost text[] := '{}'; outcomes jsonb := '[]';
    reqs bigint[]; toks bigint[]; filled bigint[]; days integer[]; day_usd bigint[]; months integer[];
    month_usd bigint[]; touched boolean[]; own bigint[]; others bigint[];
    now_ms bigint; this_day integer; this_month integer; moment timestamp; elapsed bigint; full_ bigint;
    i integer; n integer; place integer; v_calls bigint; v_tokens bigint; v_usd bigint; wait bigint; best bigint;
    best_claim integer; best_limit integer; best_budget boolean;
BEGIN
    IF beat THEN
        UPDATE waiting SET until = hold + coalesce(at_ms, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)
            WHERE holder = who;
    END IF;
    FOR op IN SELECT value FROM jsonb_array_elements(batch -> 'settles') LOOP
        IF op ->> 6 IS NOT NULL THEN
            DELETE FROM waiting WHERE id = op ->> 6;
            IF NOT FOUND THEN lost := array_append(lost, op ->> 6); END IF;
        END IF;
    END LOOP;

    INSERT INTO accounts (tenant, account) SELECT * FROM unnest(tenants, names) ON CONFLICT DO NOTHING;
    FOR kept IN
        SELECT a.* FROM unnest(tenants, names) WITH ORDINALITY AS k (tenant, account, place)
        JOIN accounts a ON a.tenant = k.tenant AND a.account = k.account ORDER BY k.place FOR UPDATE OF a
    LOOP
        reqs := array_append(reqs, kept.requests); toks := array_append(toks, kept.tokens);
        filled := array_append(filled, kept.at);
        days := array_append(days, kept.day); day_usd := array_append(day_usd, kept.usd_day);
        months := array_append(months, kept.month); month_usd := array_append(month_usd, kept.usd_month);
    END LOOP;
    now_ms := coalesce(at_ms, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint);
    moment := to_timestamp(now_ms / 1000.0) AT TIME ZONE 'UTC';
    this_day := now_ms / 86400000;
    this_month := (extract(year FROM moment) - 1970) * 12 + extract(month FROM moment) - 1;

    FOR op IN SELECT value FROM jsonb_array_elements(batch -> 'settles') LOOP
        n := CASE WHEN op ->> 6 = ANY (lost) THEN 7 ELSE 1 END;
        v_calls := (op ->> n)::bigint; v_tokens := (op ->> (n + 1))::bigint; v_usd := (op ->> (n + 2))::bigint;
        FOR i IN SELECT value::integer FROM jsonb_array_elements_text(op -> 0) LOOP
            reqs[i] := reqs[i] + v_calls * 60000; toks[i] := toks[i] + v_tokens * 60000;
            IF days[i] = (op ->> 4)::integer THEN day_usd[i] := day_usd[i] - v_usd; END IF;
            IF months[i] = (op ->> 5)::integer THEN month_usd[i] := month_usd[i] - v_usd; END IF;
            touched[i] := true;
        END LOOP;
    END LOOP;
    INSERT INTO waiting SELECT value ->> 0, (value ->> 1)::jsonb ->> 0, who, now_ms + hold, value ->> 1
        FROM jsonb_array_elements(batch -> 'waits')
        ON CONFLICT (id) DO UPDATE SET until = excluded.until;
    FOR op IN SELECT value FROM jsonb_array_elements(batch -> 'air') LOOP
        own[(op ->> 0)::integer] := (op ->> 1)::bigint;
    END LOOP;

    FOR op IN SELECT value FROM jsonb_array_elements(batch -> 'takes') LOOP
        v_calls := (op ->> 0)::bigint; v_tokens := (op ->> 1)::bigint; v_usd := (op ->> 2)::bigint;
        best := 0; best_budget := false; place := 0;
        FOR claim IN SELECT value FROM jsonb_array_elements(op -> 3) LOOP
            i := (claim ->> 0)::integer;
            elapsed := now_ms - filled[i];
            IF elapsed < 0 AND elapsed >= -60000 THEN
                elapsed := 0;
            ELSE
                filled[i] := now_ms; elapsed := greatest(0, least(elapsed, 60000));
            END IF;
            full_ := (claim ->> 1)::bigint * 60000;
            reqs[i] := CASE WHEN full_ IS NULL THEN NULL
                ELSE least(full_, coalesce(reqs[i], full_) + elapsed * (claim ->> 1)::bigint) END;
            full_ := (claim ->> 2)::bigint * 60000;
            toks[i] := CASE WHEN full_ IS NULL THEN NULL
                ELSE least(full_, coalesce(toks[i], full_) + elapsed * (claim ->> 2)::bigint) END;
            IF this_day > days[i] OR days[i] - this_day > 1 THEN days[i] := this_day; day_usd[i] := 0; END IF;
            IF this_month > months[i] OR months[i] - this_month > 1 THEN
                months[i] := this_month; month_usd[i] := 0;
            END IF;

            IF v_usd <> 0 AND month_usd[i] + v_usd > (claim ->> 5)::bigint THEN
                wait := extract(epoch FROM date_trunc('month', moment) + interval '1 month') * 1000 - now_ms;
                IF NOT best_budget OR wait > best THEN
                    best := wait; best_budget := true; best_claim := place; best_limit := 4;
                END IF;
            END IF;
            IF v_usd <> 0 AND day_usd[i] + v_usd > (claim ->> 4)::bigint THEN
                wait := (this_day + 1)::bigint * 86400000 - now_ms;
                IF NOT best_budget OR wait > best THEN
                    best := wait; best_budget := true; best_claim := place; best_limit := 3;
                END IF;
            END IF;
            IF NOT best_budget THEN
                FOR n IN 1..2 LOOP
                    full_ := (claim ->> n)::bigint;
                    wait := (CASE n WHEN 1 THEN v_calls ELSE v_tokens END);
                    IF wait > full_ THEN
                        wait := NEVER_MS;
                    ELSE
                        wait := wait * 60000 - (CASE n WHEN 1 THEN reqs[i] ELSE toks[i] END);
                        wait := CASE WHEN wait > 0 THEN (wait + full_ - 1) / full_ ELSE 0 END;
                    END IF;
                    IF wait > best THEN best := wait; best_claim := place; best_limit := n - 1; END IF;
                END LOOP;
                IF claim ->> 3 IS NOT NULL THEN
                    IF others[i] IS NULL THEN
                        others[i] := coalesce((
                            SELECT sum(a.calls) FROM air a WHERE a.tenant = tenants[i] AND a.account = names[i]
                                AND a.holder <> who AND a.until > now_ms
                        ), 0);
                    END IF;
                    IF others[i] + coalesce(own[i], 0) + v_calls > (claim ->> 3)::bigint THEN
                        wait := CASE WHEN v_calls > (claim ->> 3)::bigint THEN NEVER_MS ELSE 1000 END;
                        IF wait > best THEN best := wait; best_claim := place; best_limit := 2; END IF;
                    END IF;
                END IF;
            END IF;
            place := place + 1;
        END LOOP;
        IF best > 0 THEN
            outcomes := outcomes || jsonb_build_array(jsonb_build_array(best_claim, best_limit, best));
            CONTINUE;
        END IF;
        FOR claim IN SELECT value FROM jsonb_array_elements(op -> 3) LOOP
            i := (claim ->> 0)::integer;
            reqs[i] := reqs[i] - v_calls * 60000; toks[i] := toks[i] - v_tokens * 60000;
            day_usd[i] := day_usd[i] + v_usd; month_usd[i] := month_usd[i] + v_usd;
            IF claim ->> 3 IS NOT NULL THEN own[i] := coalesce(own[i], 0) + v_calls; END IF;
            touched[i] := true;
        END LOOP;
        outcomes := outcomes || jsonb_build_array(jsonb_build_array(this_day, this_month));
    END LOOP;

    UPDATE accounts a SET requests = k.requests, tokens = k.tokens, at = k.at, day = k.day, usd_day = k.usd_day,
        month = k.month, usd_month = k.usd_month
    FROM unnest(tenants, names, reqs, toks, filled, days, day_usd, months, month_usd, touched)
        AS k (tenant, account, requests, tokens, at, day, usd_day, month, usd_month, touched)
    WHERE k.touched AND a.tenant = k.tenant AND a.account = k.account;
    INSERT INTO air SELECT tenants[g], names[g], who, own[g], now_ms + hold
        FROM generate_series(1, cardinality(names)) g WHERE own[g] IS NOT NULL
        ON CONFLICT (tenant, account, holder) DO UPDATE SET calls = excluded.calls, until = excluded.until;
    IF beat THEN
        DELETE FROM air WHERE ctid IN (SELECT ctid FROM air WHERE until <= now_ms FOR UPDATE SKIP LOCKED);
    END IF;
    RETURN outcomes;
END $$;
""".replace("NEVER_MS", str(NEVER_MS))

# What calls that were never sent give back once their process has been silent for too long; how many there were.
# Of some tenants, or of all.
SWEEP: Final = """
CREATE OR REPLACE FUNCTION quota_sweep(of_tenants text[], at_ms bigint) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    part record; swept text[]; now_ms bigint;
BEGIN
    now_ms := coalesce(at_ms, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint);
    WITH gone AS (
        DELETE FROM waiting WHERE id IN (
            SELECT id FROM waiting WHERE until <= now_ms AND (of_tenants IS NULL OR tenant = ANY (of_tenants))
            ORDER BY id LIMIT 100 FOR UPDATE SKIP LOCKED) RETURNING back)
    SELECT array_agg(back) INTO swept FROM gone;
    FOR part IN
        SELECT b ->> 0 AS tenant, a AS account, (b ->> 2)::bigint AS calls, (b ->> 3)::bigint AS tokens,
            (b ->> 4)::bigint AS usd, (b ->> 5)::integer AS day, (b ->> 6)::integer AS month
        FROM (SELECT back::jsonb AS b FROM unnest(swept) back) s, jsonb_array_elements_text(b -> 1) a
        ORDER BY (b ->> 0) COLLATE "C", a COLLATE "C"
    LOOP
        UPDATE accounts SET requests = requests + part.calls * 60000, tokens = tokens + part.tokens * 60000,
            usd_day = usd_day - CASE WHEN day = part.day THEN part.usd ELSE 0 END,
            usd_month = usd_month - CASE WHEN month = part.month THEN part.usd ELSE 0 END
        WHERE tenant = part.tenant AND account = part.account;
    END LOOP;
    RETURN coalesce(cardinality(swept), 0);
END $$;
"""
