-- Operators administer keys through the management API and its pages. They have tables of their own, which no role but the
-- owner reads or writes: a manager role may write keys, and must not be able to make itself an operator. The audit names
-- operators, so that no name comes back. An account limits what an operator sees; NULL is all accounts.
CREATE TABLE smarter_auth.operator (
    operator_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text COLLATE "C" NOT NULL CHECK (char_length(name) BETWEEN 1 AND 255),
    role text COLLATE "C" NOT NULL CHECK (role IN ('viewer', 'manager', 'admin')),
    account text COLLATE "C" CHECK (char_length(account) BETWEEN 1 AND 255),
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    CONSTRAINT operator_name UNIQUE (name)
);

CREATE TABLE smarter_auth.operator_token (
    digest bytea PRIMARY KEY CHECK (octet_length(digest) = 64),
    operator_id uuid NOT NULL REFERENCES smarter_auth.operator,
    token_key text COLLATE "C" NOT NULL CHECK (char_length(token_key) = 15),
    created_at timestamptz NOT NULL DEFAULT now(),
    valid_until timestamptz,
    last_used_at timestamptz
);

CREATE INDEX operator_token_operator ON smarter_auth.operator_token (operator_id);

-- A session knows neither role nor account: they are read with each request, so that a change counts at once.
CREATE TABLE smarter_auth.operator_session (
    digest bytea PRIMARY KEY CHECK (octet_length(digest) = 64),
    token_digest bytea NOT NULL REFERENCES smarter_auth.operator_token ON DELETE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX operator_session_token ON smarter_auth.operator_session (token_digest);

-- Tokens that are valid now, with the operators they belong to.
CREATE VIEW smarter_auth.living_operator AS
SELECT digest, operator_id, name, role, account, operator.expires_at AS expires_at, token_key
  FROM smarter_auth.operator JOIN smarter_auth.operator_token USING (operator_id)
 WHERE revoked_at IS NULL
   AND (operator.expires_at IS NULL OR operator.expires_at > clock_timestamp())
   AND (valid_until IS NULL OR valid_until > clock_timestamp());

-- Whose a token is, if it is valid now. Its use is noted at most once an hour.
CREATE FUNCTION smarter_auth.operator_by_token(asked bytea)
RETURNS TABLE (operator_id uuid, name text, role text, account text, expires_at timestamptz, token_key text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT known.operator_id, known.name, known.role, known.account, known.expires_at, known.token_key
      FROM smarter_auth.living_operator AS known WHERE known.digest = asked;
    IF FOUND THEN
        UPDATE smarter_auth.operator_token SET last_used_at = clock_timestamp()
         WHERE digest = asked AND (last_used_at IS NULL OR last_used_at < clock_timestamp() - interval '1 hour');
    END IF;
END
$$;

-- Sign in with a token: open a session under the digest of its id. Sessions that are over are deleted on this occasion.
CREATE FUNCTION smarter_auth.open_operator_session(asked bytea, session bytea) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
DECLARE
    known record;
BEGIN
    DELETE FROM smarter_auth.operator_session
     WHERE seen_at < clock_timestamp() - interval '30 minutes' OR created_at < clock_timestamp() - interval '8 hours';
    SELECT * INTO known FROM smarter_auth.operator_by_token(asked);
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO smarter_auth.operator_session (digest, token_digest) VALUES (session, asked);
    INSERT INTO smarter_auth.audit_event (actor, action, after)
    VALUES ('operator ' || known.name, 'operator.sign_in', jsonb_build_object('name', known.name, 'token_key', known.token_key));
    RETURN true;
END
$$;

-- Whose a session is, if it is not over. That it was seen is noted at most once a minute.
CREATE FUNCTION smarter_auth.operator_by_session(session bytea)
RETURNS TABLE (operator_id uuid, name text, role text, account text, expires_at timestamptz, token_key text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT known.operator_id, known.name, known.role, known.account, known.expires_at, known.token_key
      FROM smarter_auth.operator_session AS held
      JOIN smarter_auth.living_operator AS known ON known.digest = held.token_digest
     WHERE held.digest = session
       AND held.seen_at > clock_timestamp() - interval '30 minutes'
       AND held.created_at > clock_timestamp() - interval '8 hours';
    IF FOUND THEN
        UPDATE smarter_auth.operator_session SET seen_at = clock_timestamp()
         WHERE digest = session AND seen_at < clock_timestamp() - interval '1 minute';
    END IF;
END
$$;

-- Sign out.
CREATE FUNCTION smarter_auth.end_operator_session(session bytea) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
    DELETE FROM smarter_auth.operator_session WHERE digest = session
$$;

-- Sign out everywhere: end all sessions of the operator that this one belongs to.
CREATE FUNCTION smarter_auth.end_operator_sessions(session bytea) RETURNS integer
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
    WITH owner AS (
         SELECT operator_id FROM smarter_auth.operator_session AS held
           JOIN smarter_auth.operator_token AS known ON known.digest = held.token_digest
          WHERE held.digest = session),
    ended AS (
         DELETE FROM smarter_auth.operator_session AS held USING smarter_auth.operator_token AS known, owner
          WHERE known.digest = held.token_digest AND known.operator_id = owner.operator_id
         RETURNING 1)
    SELECT count(*)::integer FROM ended
$$;

-- End leaked tokens, with their sessions; return how many were valid. An account limits it to that account's operators.
CREATE FUNCTION smarter_auth.end_operator_tokens(asked bytea[], within text, actor text) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, smarter_auth, pg_temp AS $$
DECLARE
    known record;
    ended integer := 0;
BEGIN
    FOR known IN
        SELECT digest, name, token_key FROM smarter_auth.living_operator
         WHERE digest = ANY (asked) AND (within IS NULL OR account = within) ORDER BY digest
    LOOP
        UPDATE smarter_auth.operator_token SET valid_until = clock_timestamp()
         WHERE digest = known.digest AND (valid_until IS NULL OR valid_until > clock_timestamp());
        CONTINUE WHEN NOT FOUND;
        DELETE FROM smarter_auth.operator_session WHERE token_digest = known.digest;
        INSERT INTO smarter_auth.audit_event (actor, action, after)
        VALUES (end_operator_tokens.actor, 'operator.end_token',
                jsonb_build_object('name', known.name, 'token_key', known.token_key));
        ended := ended + 1;
    END LOOP;
    RETURN ended;
END
$$;

REVOKE ALL ON FUNCTION smarter_auth.operator_by_token(bytea), smarter_auth.end_operator_tokens(bytea[], text, text),
    smarter_auth.open_operator_session(bytea, bytea), smarter_auth.operator_by_session(bytea),
    smarter_auth.end_operator_session(bytea), smarter_auth.end_operator_sessions(bytea) FROM PUBLIC;

INSERT INTO smarter_auth.privilege (grade, privilege) VALUES
    ('manager', 'EXECUTE ON FUNCTION smarter_auth.operator_by_token(bytea), smarter_auth.end_operator_tokens(bytea[], text, text)'),
    ('manager', 'EXECUTE ON FUNCTION smarter_auth.open_operator_session(bytea, bytea), smarter_auth.operator_by_session(bytea)'),
    ('manager', 'EXECUTE ON FUNCTION smarter_auth.end_operator_session(bytea), smarter_auth.end_operator_sessions(bytea)');

SELECT smarter_auth.grant_grades();
