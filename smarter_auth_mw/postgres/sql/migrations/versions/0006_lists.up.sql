-- Lists. Each one is read in the order of an index, whatever else it is filtered by. Indexes that are not for revoked
-- keys leave these out: in time most keys are revoked. Whoever has many rows may build the indexes of existing tables
-- beforehand, with CONCURRENTLY and under these names; they are not built again.

-- When a living key was used last, to the hour, and since when it has been idle: since its creation if it was never used.
CREATE TABLE smarter_auth.key_use (
    key_id uuid PRIMARY KEY,
    account text COLLATE "C" NOT NULL,
    idle_since timestamptz NOT NULL,
    is_used boolean NOT NULL
) WITH (fillfactor = 80);

COMMENT ON TABLE smarter_auth.key_use IS 'living keys only, kept by triggers';

CREATE TABLE smarter_auth.key_label (
    key_id uuid NOT NULL REFERENCES smarter_auth.key ON DELETE CASCADE,
    name text COLLATE "C" NOT NULL CHECK (name ~ '^[a-z0-9_.-]{1,63}$'),
    value text COLLATE "C" NOT NULL CHECK (value ~ '^[a-z0-9_.-]{1,63}$'),
    account text COLLATE "C" NOT NULL,
    is_living boolean NOT NULL,
    PRIMARY KEY (key_id, name)
);

COMMENT ON COLUMN smarter_auth.key_label.is_living IS 'account and is_living repeat what the key says, by triggers';

-- Both follow the keys.
CREATE FUNCTION smarter_auth.keep_key_lists() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        TRUNCATE smarter_auth.key_use;
        RETURN NULL;
    ELSIF TG_OP = 'DELETE' THEN
        DELETE FROM smarter_auth.key_use USING stale WHERE key_use.key_id = stale.key_id;
        RETURN NULL;
    ELSIF TG_OP = 'UPDATE' THEN
        IF NOT EXISTS (
            SELECT key_id, account, revoked_at IS NULL FROM fresh
            EXCEPT SELECT key_id, account, revoked_at IS NULL FROM stale) THEN
            RETURN NULL;
        END IF;
        DELETE FROM smarter_auth.key_use USING fresh
         WHERE key_use.key_id = fresh.key_id AND fresh.revoked_at IS NOT NULL;
        UPDATE smarter_auth.key_label SET account = fresh.account, is_living = fresh.revoked_at IS NULL
          FROM fresh
         WHERE key_label.key_id = fresh.key_id
           AND (key_label.account, key_label.is_living) IS DISTINCT FROM (fresh.account, fresh.revoked_at IS NULL);
    END IF;
    INSERT INTO smarter_auth.key_use (key_id, account, idle_since, is_used)
    SELECT fresh.key_id, fresh.account, coalesce(used.at, fresh.created_at), used.at IS NOT NULL
      FROM fresh
     CROSS JOIN LATERAL (
           SELECT max(last_used_at) AS at
             FROM smarter_auth.token JOIN smarter_auth.token_use ON token_use.digest = token.digest
            WHERE token.key_id = fresh.key_id AND TG_OP = 'UPDATE') AS used
     WHERE fresh.revoked_at IS NULL
        ON CONFLICT (key_id) DO UPDATE SET account = excluded.account;
    RETURN NULL;
END
$$;

CREATE TRIGGER keep_lists_on_insert AFTER INSERT ON smarter_auth.key REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION smarter_auth.keep_key_lists();

CREATE TRIGGER keep_lists_on_update AFTER UPDATE ON smarter_auth.key REFERENCING OLD TABLE AS stale NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION smarter_auth.keep_key_lists();

CREATE TRIGGER keep_lists_on_delete AFTER DELETE ON smarter_auth.key REFERENCING OLD TABLE AS stale
    FOR EACH STATEMENT EXECUTE FUNCTION smarter_auth.keep_key_lists();

CREATE TRIGGER keep_lists_on_truncate AFTER TRUNCATE ON smarter_auth.key
    FOR EACH STATEMENT EXECUTE FUNCTION smarter_auth.keep_key_lists();

ALTER TABLE smarter_auth.key
    ENABLE ALWAYS TRIGGER keep_lists_on_insert, ENABLE ALWAYS TRIGGER keep_lists_on_update,
    ENABLE ALWAYS TRIGGER keep_lists_on_delete, ENABLE ALWAYS TRIGGER keep_lists_on_truncate;

-- A label is its key's, whatever the writer says of account and life.
CREATE FUNCTION smarter_auth.keep_label() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
BEGIN
    SELECT account, revoked_at IS NULL INTO NEW.account, NEW.is_living
      FROM smarter_auth.key WHERE key_id = NEW.key_id;
    RETURN NEW;
END
$$;

CREATE TRIGGER keep_label BEFORE INSERT ON smarter_auth.key_label
    FOR EACH ROW EXECUTE FUNCTION smarter_auth.keep_label();

ALTER TABLE smarter_auth.key_label ENABLE ALWAYS TRIGGER keep_label;

-- Once an hour is enough for a list, and a row that somebody else writes at this moment is left to the next use.
CREATE FUNCTION smarter_auth.keep_key_use() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
BEGIN
    WITH used AS (
         SELECT key_id, max(last_used_at) AS at
           FROM fresh JOIN smarter_auth.token ON token.digest = fresh.digest
          GROUP BY key_id),
         free AS (
         SELECT key_use.key_id, used.at
           FROM used JOIN smarter_auth.key_use ON key_use.key_id = used.key_id
          WHERE NOT is_used OR idle_since < used.at - interval '1 hour'
            FOR NO KEY UPDATE OF key_use SKIP LOCKED)
    UPDATE smarter_auth.key_use SET idle_since = free.at, is_used = true
      FROM free WHERE key_use.key_id = free.key_id;
    RETURN NULL;
END
$$;

CREATE TRIGGER keep_key_use_on_insert AFTER INSERT ON smarter_auth.token_use REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION smarter_auth.keep_key_use();

CREATE TRIGGER keep_key_use_on_update AFTER UPDATE ON smarter_auth.token_use REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION smarter_auth.keep_key_use();

ALTER TABLE smarter_auth.token_use
    ENABLE ALWAYS TRIGGER keep_key_use_on_insert, ENABLE ALWAYS TRIGGER keep_key_use_on_update;

-- What is there already.
INSERT INTO smarter_auth.key_use (key_id, account, idle_since, is_used)
SELECT key.key_id, key.account, coalesce(used.at, key.created_at), used.at IS NOT NULL
  FROM smarter_auth.key
  LEFT JOIN (SELECT key_id, max(last_used_at) AS at
               FROM smarter_auth.token_use JOIN smarter_auth.token ON token.digest = token_use.digest
              GROUP BY key_id) AS used ON used.key_id = key.key_id
 WHERE revoked_at IS NULL;

CREATE INDEX key_use_idle ON smarter_auth.key_use (idle_since, key_id);

CREATE INDEX key_use_idle_of_account ON smarter_auth.key_use (account, idle_since, key_id);

CREATE INDEX key_use_never ON smarter_auth.key_use (idle_since, key_id) WHERE NOT is_used;

CREATE INDEX key_use_never_of_account ON smarter_auth.key_use (account, idle_since, key_id) WHERE NOT is_used;

CREATE INDEX key_label_value ON smarter_auth.key_label (name, value, key_id) WHERE is_living;

CREATE INDEX key_label_value_of_account ON smarter_auth.key_label (account, name, value, key_id) WHERE is_living;

CREATE INDEX IF NOT EXISTS key_by_name ON smarter_auth.key (lower(name), key_id) WHERE revoked_at IS NULL;

CREATE INDEX IF NOT EXISTS key_by_name_of_account ON smarter_auth.key (account, lower(name), key_id)
    WHERE revoked_at IS NULL;

CREATE INDEX IF NOT EXISTS key_by_creation ON smarter_auth.key (created_at, key_id) WHERE revoked_at IS NULL;

CREATE INDEX IF NOT EXISTS key_by_creation_of_account ON smarter_auth.key (account, created_at, key_id)
    WHERE revoked_at IS NULL;

CREATE INDEX IF NOT EXISTS key_by_expiry ON smarter_auth.key (expires_at, key_id)
    WHERE revoked_at IS NULL AND expires_at IS NOT NULL;

CREATE INDEX IF NOT EXISTS key_by_expiry_of_account ON smarter_auth.key (account, expires_at, key_id)
    WHERE revoked_at IS NULL AND expires_at IS NOT NULL;

CREATE INDEX IF NOT EXISTS key_by_revocation ON smarter_auth.key (revoked_at, key_id) WHERE revoked_at IS NOT NULL;

CREATE INDEX IF NOT EXISTS key_by_revocation_of_account ON smarter_auth.key (account, revoked_at, key_id)
    WHERE revoked_at IS NOT NULL;

CREATE INDEX IF NOT EXISTS token_by_token_key ON smarter_auth.token (token_key, key_id);

CREATE INDEX IF NOT EXISTS token_by_end ON smarter_auth.token (valid_until, key_id) WHERE valid_until IS NOT NULL;

CREATE INDEX IF NOT EXISTS token_by_end_of_account ON smarter_auth.token (account, valid_until, key_id)
    WHERE valid_until IS NOT NULL;

CREATE INDEX IF NOT EXISTS resource_of_account ON smarter_auth.resource (account, kind, replace(ref, '_', '-'));

CREATE INDEX IF NOT EXISTS resource_open ON smarter_auth.resource (kind, replace(ref, '_', '-'))
    WHERE protection = 'open';

CREATE INDEX IF NOT EXISTS resource_open_of_account ON smarter_auth.resource (account, kind, replace(ref, '_', '-'))
    WHERE protection = 'open';

CREATE INDEX IF NOT EXISTS binding_of_key ON smarter_auth.binding (key_id, resource_id);

CREATE INDEX IF NOT EXISTS usage_series_by_key ON smarter_auth.usage_series (key_id, kind, replace(ref, '_', '-'))
    WHERE key_id IS NOT NULL;

-- The audit, in order of time: everything, and what people did by itself, which requests outnumber by far.
CREATE INDEX IF NOT EXISTS audit_by_time ON smarter_auth.audit_event (at, id);

CREATE INDEX IF NOT EXISTS audit_of_account ON smarter_auth.audit_event (account, at, id) WHERE account IS NOT NULL;

CREATE INDEX IF NOT EXISTS audit_of_resource ON smarter_auth.audit_event (kind, replace(ref, '_', '-'), at, id)
    WHERE kind IS NOT NULL;

CREATE INDEX IF NOT EXISTS audit_of_key ON smarter_auth.audit_event (key_id, at, id) WHERE key_id IS NOT NULL;

CREATE INDEX IF NOT EXISTS act_by_time ON smarter_auth.audit_event (at, id) WHERE action NOT LIKE 'request.%';

CREATE INDEX IF NOT EXISTS act_of_account ON smarter_auth.audit_event (account, at, id)
    WHERE action NOT LIKE 'request.%';

CREATE INDEX IF NOT EXISTS act_of_resource ON smarter_auth.audit_event (kind, replace(ref, '_', '-'), at, id)
    WHERE action NOT LIKE 'request.%';

CREATE INDEX IF NOT EXISTS act_on_key ON smarter_auth.audit_event (key_id, at, id) WHERE action NOT LIKE 'request.%';

CREATE INDEX IF NOT EXISTS act_by_actor ON smarter_auth.audit_event (actor, at, id) WHERE action NOT LIKE 'request.%';

DROP INDEX smarter_auth.audit_event_at, smarter_auth.audit_event_resource, smarter_auth.audit_event_key_id;

-- In which transaction an event was written: who follows the audit asks for those that were committed since then.
ALTER TABLE smarter_auth.audit_event ADD COLUMN tx xid8;

ALTER TABLE smarter_auth.audit_event ALTER COLUMN tx SET DEFAULT pg_current_xact_id();

CREATE INDEX audit_by_tx ON smarter_auth.audit_event (tx, id) WHERE tx IS NOT NULL;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA smarter_auth FROM PUBLIC;

INSERT INTO smarter_auth.runtime_privilege (privilege) VALUES
    ('INSERT ON smarter_auth.key_label'),
    ('DELETE ON smarter_auth.key_label');

SELECT smarter_auth.grant_runtime(rolname)
  FROM pg_catalog.pg_namespace CROSS JOIN LATERAL pg_catalog.aclexplode(nspacl) AS acl
  JOIN pg_catalog.pg_roles ON pg_roles.oid = acl.grantee
 WHERE nspname = 'smarter_auth' AND acl.grantee <> nspowner;
