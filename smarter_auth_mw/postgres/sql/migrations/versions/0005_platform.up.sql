-- What a Smarter platform is attached to. The functions named platform_… are empty here; attach.sql puts the platform's
-- tables into them. They are not SECURITY DEFINER and set nothing, so that PostgreSQL plans them as a part of the
-- statement that calls them; their bodies are text, so that no object of the platform's depends on us, nor we on it.

ALTER TABLE smarter_auth.meta
    ADD COLUMN layout text COLLATE "C" NOT NULL DEFAULT 'native' CHECK (layout IN ('native', 'smarter')),
    ADD COLUMN platform_schema name;

-- The tables that are attached, and the columns of each that we ask for; kind is that of the resources they hold.
CREATE TABLE smarter_auth.platform_table (
    relation name PRIMARY KEY,
    part text COLLATE "C" NOT NULL,
    kind text COLLATE "C",
    columns name[] NOT NULL
);

-- The triggers that belong on them.
CREATE TABLE smarter_auth.platform_trigger (
    relation name NOT NULL,
    name name NOT NULL,
    timing text NOT NULL,
    event text NOT NULL,
    function name NOT NULL,
    arguments text[] NOT NULL,
    PRIMARY KEY (relation, name)
);

-- What bots were ever called, and where to look: whoever reads it compares with the bot as it is. Triggers add rows and
-- never read, change or delete one: whatever isolation the platform's transactions have, none fails by it. A name stands
-- in the form of a host label, a domain in lower case; account_id is empty where it could not be told without waiting.
CREATE TABLE smarter_auth.platform_alias (
    kind text COLLATE "C" NOT NULL,
    form text COLLATE "C" NOT NULL CHECK (form IN ('name', 'domain')),
    value text COLLATE "C" NOT NULL,
    account_id bigint,
    row_id bigint NOT NULL
);

CREATE INDEX platform_alias_look_up ON smarter_auth.platform_alias (kind, form, value, account_id);

-- Bindings and tokens that were deleted, and in which transaction. A binding that went with its token is lost: what it
-- protected stays protected. One that went alone was unbound, and forgives the losses before it that it could see.
CREATE TABLE smarter_auth.lost_binding (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text COLLATE "C" NOT NULL,
    ref text COLLATE "C" NOT NULL,
    digest text COLLATE "C" NOT NULL,
    is_certain boolean NOT NULL DEFAULT false,
    tx xid8 NOT NULL DEFAULT pg_current_xact_id(),
    seen pg_snapshot NOT NULL DEFAULT pg_current_snapshot()
);

COMMENT ON COLUMN smarter_auth.lost_binding.is_certain IS 'lost, whatever became of its token: the table was truncated';

CREATE INDEX lost_binding_resource ON smarter_auth.lost_binding (kind, ref);

CREATE INDEX lost_binding_digest ON smarter_auth.lost_binding (digest);

CREATE TABLE smarter_auth.lost_token (
    digest text COLLATE "C" NOT NULL,
    tx xid8 NOT NULL DEFAULT pg_current_xact_id()
);

CREATE INDEX lost_token_digest ON smarter_auth.lost_token (digest, tx);

-- A reference as the platform's primary key, where it is one.
CREATE FUNCTION smarter_auth.as_id(lookup text) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN $1 ~ '^(0|[1-9][0-9]{0,18})$'
                THEN CASE WHEN $1::pg_catalog.numeric <= 9223372036854775807 THEN $1::pg_catalog.int8 END END
$$;

-- What the label of a name may be of which the label of NAME-USERNAME is this one.
CREATE FUNCTION smarter_auth.label_heads(label text) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT ARRAY['', $1] || ARRAY(
           SELECT pg_catalog.left($1, place - 1) FROM pg_catalog.generate_series(2, pg_catalog.length($1)) AS place
            WHERE pg_catalog.substr($1, place, 1) = '-')
$$;

CREATE FUNCTION smarter_auth.platform_resource(kind text, lookup text)
RETURNS TABLE (ref text, account text, is_latched boolean, sources text[]) LANGUAGE sql STABLE AS $$
    SELECT NULL::text, NULL::text, NULL::boolean, NULL::text[] FROM smarter_auth.platform_table WHERE false
$$;

CREATE FUNCTION smarter_auth.platform_bindings(kind text, lookup text)
RETURNS TABLE (key_id text, key_name text, key_account text, is_active boolean, is_revoked boolean,
               owner_is_active boolean, digest bytea, token_key text, expires_at_s float8, key_sources text[])
LANGUAGE sql STABLE AS $$
    SELECT NULL::text, NULL::text, NULL::text, NULL::boolean, NULL::boolean,
           NULL::boolean, NULL::bytea, NULL::text, NULL::float8, NULL::text[] FROM smarter_auth.platform_table WHERE false
$$;

CREATE FUNCTION smarter_auth.platform_token(digest bytea)
RETURNS TABLE (key_id text, key_name text, key_account text, is_active boolean, is_revoked boolean,
               owner_is_active boolean, digest bytea, token_key text, expires_at_s float8, key_sources text[])
LANGUAGE sql STABLE AS $$
    SELECT NULL::text, NULL::text, NULL::text, NULL::boolean, NULL::boolean,
           NULL::boolean, NULL::bytea, NULL::text, NULL::float8, NULL::text[] FROM smarter_auth.platform_table WHERE false
$$;

CREATE FUNCTION smarter_auth.platform_lookups(kind text, form text, account text, value text)
RETURNS TABLE (lookup text) LANGUAGE sql STABLE AS $$
    SELECT NULL::text FROM smarter_auth.platform_table WHERE false
$$;

CREATE FUNCTION smarter_auth.platform_domains()
RETURNS TABLE (domain text, kind text) LANGUAGE sql STABLE AS $$
    SELECT NULL::text, NULL::text FROM smarter_auth.platform_table WHERE false
$$;

-- Of each resource that has a binding: for people, not for requests.
CREATE FUNCTION smarter_auth.platform_protected()
RETURNS TABLE (kind text, ref text) LANGUAGE sql STABLE AS $$
    SELECT NULL::text, NULL::text FROM smarter_auth.platform_table WHERE false
$$;

-- Those of these keys that are the platform's, or all of its keys: for people, not for requests.
CREATE FUNCTION smarter_auth.platform_keys(key_ids uuid[])
RETURNS TABLE (key_id uuid, account text, name text, description text, is_active boolean, expires_at timestamptz,
               created_at timestamptz, updated_at timestamptz, bindings text[], token_key text,
               token_created_at timestamptz, last_used_at timestamptz, digest bytea)
LANGUAGE sql STABLE AS $$
    SELECT NULL::uuid, NULL::text, NULL::text, NULL::text, NULL::boolean, NULL::timestamptz, NULL::timestamptz,
           NULL::timestamptz, NULL::text[], NULL::text, NULL::timestamptz, NULL::timestamptz, NULL::bytea FROM smarter_auth.platform_table WHERE false
$$;

-- The triggers that ought to be on the platform's tables and are not, or do not fire.
CREATE FUNCTION smarter_auth.platform_missing() RETURNS SETOF text
LANGUAGE sql STABLE SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
    SELECT asked.relation || '.' || asked.name
      FROM smarter_auth.meta
     CROSS JOIN smarter_auth.platform_trigger AS asked
      LEFT JOIN pg_trigger ON tgname = asked.name
       AND tgrelid = to_regclass(format('%I.%I', meta.platform_schema, asked.relation))
     WHERE coalesce(tgenabled, 'D') NOT IN ('O', 'A')
$$;

-- The columns that we ask for and that are not there any more.
CREATE FUNCTION smarter_auth.platform_gone() RETURNS SETOF text
LANGUAGE sql STABLE SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
    SELECT wanted.relation || '.' || wanted.name
      FROM smarter_auth.meta
     CROSS JOIN (SELECT relation, unnest(columns) FROM smarter_auth.platform_table) AS wanted (relation, name)
     WHERE NOT EXISTS (
           SELECT FROM pg_attribute
            WHERE attrelid = to_regclass(format('%I.%I', meta.platform_schema, wanted.relation))
              AND attname = wanted.name AND NOT attisdropped)
     ORDER BY 1
$$;

-- These columns of a row, whatever else it has: one that vanished is empty.
CREATE FUNCTION smarter_auth.picked(line jsonb, columns text[]) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT pg_catalog.jsonb_object_agg(wanted, $1 -> wanted) FROM pg_catalog.unnest($2) AS wanted
$$;

-- The source that a row is, by a pattern such as bindings:{bot_id}; everything, where the column has vanished.
CREATE FUNCTION smarter_auth.source_of(line jsonb, pattern text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN pg_catalog.strpos($2, '{') = 0 THEN $2
                ELSE coalesce(pg_catalog.split_part($2, '{', 1)
                              || pg_catalog.left($1 ->> pg_catalog.rtrim(pg_catalog.split_part($2, '{', 2), '}'), 32),
                              '*') END
$$;

-- The platform's changes. The arguments are threes: the columns that decide, the source that a row is, and the one that
-- stands for very many. Columns are looked up by name in the row itself: whatever its own migrations do to the table,
-- the platform goes on writing.
CREATE FUNCTION smarter_auth.note_platform() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
DECLARE
    many CONSTANT integer := 100;
    columns text[];
    touched jsonb[];
    sources text[] := ARRAY['*'];
BEGIN
    FOR rule IN 0 .. TG_NARGS / 3 - 1 LOOP
        columns := string_to_array(TG_ARGV[3 * rule], ',');
        FOR level IN 1 .. 2 LOOP
            IF TG_OP = 'INSERT' THEN
                SELECT array_agg(source) INTO sources FROM (
                    SELECT DISTINCT smarter_auth.source_of(to_jsonb(fresh), TG_ARGV[3 * rule + level]) AS source
                      FROM fresh LIMIT many + 1) AS told;
            ELSIF TG_OP = 'DELETE' THEN
                SELECT array_agg(source) INTO sources FROM (
                    SELECT DISTINCT smarter_auth.source_of(to_jsonb(stale), TG_ARGV[3 * rule + level]) AS source
                      FROM stale LIMIT many + 1) AS told;
            ELSE
                WITH was AS (SELECT smarter_auth.picked(to_jsonb(stale), columns) AS line FROM stale),
                     is_now AS (SELECT smarter_auth.picked(to_jsonb(fresh), columns) AS line FROM fresh)
                SELECT array_agg(source) INTO sources FROM (
                    SELECT DISTINCT smarter_auth.source_of(line, TG_ARGV[3 * rule + level]) AS source
                      FROM ((TABLE was EXCEPT TABLE is_now) UNION ALL (TABLE is_now EXCEPT TABLE was)) AS touched
                     LIMIT many + 1) AS told;
            END IF;
            EXIT WHEN sources IS NULL OR cardinality(sources) <= many;
        END LOOP;
        IF cardinality(sources) > many THEN
            sources := ARRAY['*'];
        END IF;
        INSERT INTO smarter_auth.change (source) SELECT unnest(sources);
        PERFORM pg_notify('smarter_auth', source || ':' || pg_current_xact_id()) FROM unnest(sources) AS source;
    END LOOP;
    IF TG_OP = 'TRUNCATE' THEN
        INSERT INTO smarter_auth.change (source) VALUES ('*');
        PERFORM pg_notify('smarter_auth', '*:' || pg_current_xact_id());
    END IF;
    RETURN NULL;
END
$$;

-- Names of bots. The arguments: the kind, and the column that leads to the account. By way of the owner's profile it is
-- looked up where that can neither wait nor fail: not in a serializable transaction, which would have to vouch for what
-- it read; and a profile that comes only later (loaddata) leaves it empty.
CREATE FUNCTION smarter_auth.keep_platform_names() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
DECLARE
    columns CONSTANT text[] := ARRAY['id', 'name', TG_ARGV[1]];
    bots jsonb[];
    accounts jsonb := '{}';
BEGIN
    IF TG_OP = 'INSERT' THEN
        SELECT array_agg(smarter_auth.picked(to_jsonb(fresh), columns)) INTO bots FROM fresh;
    ELSE
        SELECT array_agg(line) INTO bots FROM (
            SELECT smarter_auth.picked(to_jsonb(fresh), columns) FROM fresh
            EXCEPT SELECT smarter_auth.picked(to_jsonb(stale), columns) FROM stale) AS renamed (line);
    END IF;
    IF bots IS NULL THEN
        RETURN NULL;
    ELSIF TG_ARGV[1] = 'user_profile_id' AND current_setting('transaction_isolation') <> 'serializable' THEN
        BEGIN
            EXECUTE format('SELECT coalesce(jsonb_object_agg(id, account_id), ''{}'') FROM %I.account_userprofile'
                           ' WHERE id = ANY (SELECT (bot ->> ''user_profile_id'')::bigint FROM unnest($1) AS bot)',
                           TG_TABLE_SCHEMA) INTO accounts USING bots;
        EXCEPTION WHEN undefined_table OR undefined_column OR insufficient_privilege THEN
            accounts := '{}';
        END;
    END IF;
    INSERT INTO smarter_auth.platform_alias (kind, form, value, account_id, row_id)
    SELECT TG_ARGV[0], 'name', smarter_auth.host_label(bot ->> 'name'),
           CASE TG_ARGV[1] WHEN 'account_id' THEN (bot ->> 'account_id')::bigint
                           ELSE (accounts ->> (bot ->> 'user_profile_id'))::bigint END,
           (bot ->> 'id')::bigint
      FROM unnest(bots) AS bot
     WHERE bot ->> 'id' IS NOT NULL AND bot ->> 'name' IS NOT NULL;
    RETURN NULL;
END
$$;

CREATE FUNCTION smarter_auth.keep_platform_domains() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
BEGIN
    INSERT INTO smarter_auth.platform_alias (kind, form, value, account_id, row_id)
    SELECT TG_ARGV[0], 'domain', rtrim(lower(line ->> 'domain_name'), '.'), 0, (line ->> 'id')::bigint
      FROM (SELECT to_jsonb(fresh) FROM fresh) AS known (line)
     WHERE line ->> 'id' IS NOT NULL AND line ->> 'domain_name' <> '';
    RETURN NULL;
END
$$;

-- A profile that is moved to another account takes its bots along.
CREATE FUNCTION smarter_auth.keep_moved_profiles() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
DECLARE
    moved jsonb[];
    bots record;
BEGIN
    SELECT array_agg(line) INTO moved FROM (
        SELECT smarter_auth.picked(to_jsonb(fresh), '{id,account_id}') FROM fresh
        EXCEPT SELECT smarter_auth.picked(to_jsonb(stale), '{id,account_id}') FROM stale) AS changed (line);
    IF moved IS NULL THEN
        RETURN NULL;
    END IF;
    FOR bots IN SELECT relation, kind FROM smarter_auth.platform_table WHERE part = 'bots' LOOP
        BEGIN
            EXECUTE format(
                'INSERT INTO smarter_auth.platform_alias (kind, form, value, account_id, row_id)'
                ' SELECT %L, ''name'', smarter_auth.host_label(bot.name), (profile ->> ''account_id'')::bigint, bot.id'
                '   FROM unnest($1) AS profile JOIN %I.%I AS bot ON bot.user_profile_id = (profile ->> ''id'')::bigint',
                bots.kind, TG_TABLE_SCHEMA, bots.relation) USING moved;
        EXCEPTION WHEN undefined_table OR undefined_column OR insufficient_privilege THEN
            NULL;  -- Nothing can be read of these bots either, until somebody attends to it.
        END;
    END LOOP;
    RETURN NULL;
END
$$;

-- The arguments: the kind, and the column that leads to the resource.
CREATE FUNCTION smarter_auth.keep_lost_bindings() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
BEGIN
    INSERT INTO smarter_auth.lost_binding (kind, ref, digest)
    SELECT TG_ARGV[0], line ->> TG_ARGV[1], line ->> 'api_key_id'
      FROM (SELECT to_jsonb(stale) FROM stale) AS gone (line)
     WHERE line ->> TG_ARGV[1] IS NOT NULL AND line ->> 'api_key_id' IS NOT NULL;
    RETURN NULL;
END
$$;

-- The argument: the column that holds the digest.
CREATE FUNCTION smarter_auth.keep_lost_tokens() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
BEGIN
    INSERT INTO smarter_auth.lost_token (digest)
    SELECT line ->> TG_ARGV[0] FROM (SELECT to_jsonb(stale) FROM stale) AS gone (line)
     WHERE line ->> TG_ARGV[0] IS NOT NULL;
    RETURN NULL;
END
$$;

-- Nobody unbinds by truncating: whatever had a binding stays protected.
CREATE FUNCTION smarter_auth.keep_truncated_bindings() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
BEGIN
    EXECUTE format('INSERT INTO smarter_auth.lost_binding (kind, ref, digest, is_certain)'
                   ' SELECT DISTINCT %L, %I::text, '''', true FROM %I.%I',
                   TG_ARGV[0], TG_ARGV[1], TG_TABLE_SCHEMA, TG_TABLE_NAME);
    RETURN NULL;
EXCEPTION WHEN undefined_column OR insufficient_privilege THEN
    RETURN NULL;
END
$$;

-- When a token was used last, in the platform's own column too: at most every five minutes, as it means to do itself, and
-- never by waiting for a row that somebody is changing.
CREATE FUNCTION smarter_auth.write_platform_use() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
BEGIN
    EXECUTE format(
        'UPDATE %1$I.%2$I AS token SET last_used_at = used.last_used_at'
        '  FROM (SELECT encode(digest, ''hex'') AS digest, max(last_used_at) AS last_used_at FROM fresh GROUP BY digest) AS used'
        ' WHERE token.authtoken_ptr_id = used.digest AND token.authtoken_ptr_id IN ('
        '       SELECT known.authtoken_ptr_id FROM %1$I.%2$I AS known JOIN fresh ON known.authtoken_ptr_id = encode(fresh.digest, ''hex'')'
        '        WHERE coalesce(known.last_used_at < fresh.last_used_at - interval ''5 minutes'', true)'
        '        ORDER BY 1 FOR NO KEY UPDATE OF known SKIP LOCKED)', TG_ARGV[0], TG_ARGV[1]);
    RETURN NULL;
EXCEPTION WHEN undefined_table OR undefined_column OR insufficient_privilege THEN
    RETURN NULL;
END
$$;

-- Forget what nobody needs to know any more of deletions that everybody can see: losses that were forgiven, what was
-- unbound, and tokens that were bound to nothing.
CREATE FUNCTION smarter_auth.settle_platform() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
DECLARE
    oldest CONSTANT xid8 := pg_snapshot_xmin(pg_current_snapshot());
BEGIN
    IF NOT pg_try_advisory_xact_lock(7236834504) THEN
        RETURN;  -- One at a time is enough.
    END IF;
    UPDATE smarter_auth.lost_binding AS lost SET is_certain = true
     WHERE tx < oldest AND NOT is_certain
       AND EXISTS (SELECT FROM smarter_auth.lost_token AS token WHERE token.digest = lost.digest AND token.tx = lost.tx);
    DELETE FROM smarter_auth.lost_binding AS lost USING smarter_auth.lost_binding AS later
     WHERE lost.tx < oldest AND lost.is_certain AND later.tx < oldest AND NOT later.is_certain
       AND later.kind = lost.kind AND later.ref = lost.ref AND later.id > lost.id AND later.tx <> lost.tx
       AND pg_visible_in_snapshot(lost.tx, later.seen);
    DELETE FROM smarter_auth.lost_binding WHERE tx < oldest AND NOT is_certain AND pg_snapshot_xmax(seen) <= oldest;
    DELETE FROM smarter_auth.lost_binding AS lost USING smarter_auth.lost_binding AS other
     WHERE lost.tx < oldest AND lost.is_certain AND other.is_certain AND other.tx < oldest
       AND other.kind = lost.kind AND other.ref = lost.ref AND other.id > lost.id;
    DELETE FROM smarter_auth.lost_token WHERE tx < oldest;
END
$$;

-- The latch of a platform's resource opens: with its audit row.
CREATE FUNCTION smarter_auth.release_platform(kind text, lookup text, actor text, reason text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
DECLARE
    source CONSTANT text := 'bindings:' || release_platform.kind || ':' || release_platform.lookup;
BEGIN
    DELETE FROM smarter_auth.lost_binding AS lost
     WHERE lost.kind = release_platform.kind AND lost.ref = release_platform.lookup;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    INSERT INTO smarter_auth.change (source) VALUES (source);
    PERFORM pg_notify('smarter_auth', source || ':' || pg_current_xact_id());
    INSERT INTO smarter_auth.audit_event (actor, action, kind, ref, reason, before, after)
    VALUES (release_platform.actor, 'resource.unprotect', release_platform.kind, release_platform.lookup,
            release_platform.reason, '{"protection": "bound"}', '{"protection": "open"}');
END
$$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA smarter_auth FROM PUBLIC;

INSERT INTO smarter_auth.runtime_privilege (privilege) VALUES
    ('SELECT ON smarter_auth.platform_table, smarter_auth.platform_trigger, smarter_auth.platform_alias'),
    ('SELECT ON smarter_auth.lost_binding, smarter_auth.lost_token'),
    ('EXECUTE ON FUNCTION smarter_auth.platform_resource(text, text), smarter_auth.platform_bindings(text, text)'),
    ('EXECUTE ON FUNCTION smarter_auth.platform_token(bytea), smarter_auth.platform_keys(uuid[])'),
    ('EXECUTE ON FUNCTION smarter_auth.platform_lookups(text, text, text, text), smarter_auth.platform_domains()'),
    ('EXECUTE ON FUNCTION smarter_auth.platform_protected(), smarter_auth.platform_missing(), smarter_auth.platform_gone()'),
    ('EXECUTE ON FUNCTION smarter_auth.settle_platform(), smarter_auth.release_platform(text, text, text, text)'),
    ('EXECUTE ON FUNCTION smarter_auth.as_id(text), smarter_auth.label_heads(text), smarter_auth.host_label(text)');

SELECT smarter_auth.grant_runtime(rolname)
  FROM pg_catalog.pg_namespace CROSS JOIN LATERAL pg_catalog.aclexplode(nspacl) AS acl
  JOIN pg_catalog.pg_roles ON pg_roles.oid = acl.grantee
 WHERE nspname = 'smarter_auth' AND acl.grantee <> nspowner;
