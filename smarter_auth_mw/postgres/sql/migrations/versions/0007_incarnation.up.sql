-- A crash recovery gives transaction numbers out again: those of transactions whose log was not on disk yet. If only a
-- backend was killed, the postmaster's start time, the timeline and the epoch stay as they were. So who answers has one
-- more name, in a table that is UNLOGGED for the sake of what is usually the price of that: PostgreSQL empties it whenever
-- it recovers from a crash, and on a standby that is promoted. The next heartbeat writes a new name.
CREATE UNLOGGED TABLE smarter_auth.incarnation (
    is_only_row boolean PRIMARY KEY DEFAULT true CHECK (is_only_row),
    id uuid NOT NULL DEFAULT gen_random_uuid()
);

COMMENT ON TABLE smarter_auth.incarnation IS
    'names this server until its next crash, which empties the table: it must stay UNLOGGED';

INSERT INTO smarter_auth.incarnation DEFAULT VALUES;

-- Who answers, until the next crash or restart; a name that begins with a slash is not complete yet. Some services keep
-- UNLOGGED tables through a crash (Amazon Aurora). Since PostgreSQL 15 the statistics of the background writer tell it too:
-- they live in shared memory, and every recovery resets them; who resets them by hand costs the caches a flush. Before 15
-- they are a file of another process, which takes milliseconds to read. The times are in a form that no setting of a
-- session changes. Not SECURITY DEFINER, and without a search path of its own, so that the planner puts it into the
-- statement that calls it.
CREATE FUNCTION smarter_auth.incarnation_now() RETURNS SETOF text
LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT concat((SELECT id FROM smarter_auth.incarnation), '/x',
                  encode(timestamptz_send(pg_postmaster_start_time()), 'hex'), '/x',
                  CASE WHEN current_setting('server_version_num')::integer >= 150000
                       THEN encode(timestamptz_send(pg_stat_get_bgwriter_stat_reset_time()), 'hex') END)
$$;

-- Harmless at any time, by any number of workers: the first one gives the name for all.
CREATE FUNCTION smarter_auth.name_incarnation() RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
    INSERT INTO smarter_auth.incarnation DEFAULT VALUES ON CONFLICT DO NOTHING
$$;

-- A change of what is decided is on disk before its COMMIT is answered, whatever synchronous_commit says otherwise: with it
-- off, a crash could take back a revocation that somebody was told of.
CREATE FUNCTION smarter_auth.commit_to_disk() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
BEGIN
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER commit_to_disk AFTER INSERT ON smarter_auth.change
    FOR EACH STATEMENT EXECUTE FUNCTION smarter_auth.commit_to_disk();

ALTER TABLE smarter_auth.change ENABLE ALWAYS TRIGGER commit_to_disk;

REVOKE ALL ON FUNCTION smarter_auth.commit_to_disk(), smarter_auth.incarnation_now(), smarter_auth.name_incarnation() FROM PUBLIC;

INSERT INTO smarter_auth.runtime_privilege (privilege) VALUES
    ('EXECUTE ON FUNCTION smarter_auth.incarnation_now(), smarter_auth.name_incarnation()');

-- Whoever runs on the schema so far gets what is new.
SELECT smarter_auth.grant_runtime(rolname)
  FROM pg_catalog.pg_namespace CROSS JOIN LATERAL pg_catalog.aclexplode(nspacl) AS acl
  JOIN pg_catalog.pg_roles ON pg_roles.oid = acl.grantee
 WHERE nspname = 'smarter_auth' AND acl.grantee <> nspowner;
