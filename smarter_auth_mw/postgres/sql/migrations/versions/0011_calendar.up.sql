-- Times are within the calendar that programs know, years 1 to 9999: neither infinity nor -infinity. What lies outside, since
-- somebody wrote it with plain SQL, becomes the first or the last moment, which decides alike.
DO $$
DECLARE
    first CONSTANT timestamptz := '0001-01-01 00:00:00+00';
    last CONSTANT timestamptz := '9999-12-31 23:59:59.999999+00';
    times CONSTANT text[] := ARRAY[
        ['resource', 'created_at'], ['resource', 'updated_at'],
        ['key', 'created_at'], ['key', 'updated_at'], ['key', 'expires_at'], ['key', 'revoked_at'],
        ['token', 'created_at'], ['token', 'valid_until'], ['token_use', 'last_used_at'], ['key_use', 'idle_since'],
        ['binding', 'created_at'], ['binding', 'updated_at'],
        ['operator', 'created_at'], ['operator', 'expires_at'], ['operator', 'revoked_at'],
        ['operator_token', 'created_at'], ['operator_token', 'valid_until'], ['operator_token', 'last_used_at'],
        ['audit_event', 'at']];
    one text[];
BEGIN
    FOREACH one SLICE 1 IN ARRAY times LOOP
        EXECUTE format(
            'UPDATE smarter_auth.%1$I SET %2$I = least(greatest(%2$I, %3$L), %4$L) WHERE %2$I < %3$L OR %2$I > %4$L',
            one[1], one[2], first, last);
    END LOOP;
    -- Only now, since this locks the table until the end. The audit may be long, so its rows are not read again.
    FOREACH one SLICE 1 IN ARRAY times LOOP
        EXECUTE format(
            'ALTER TABLE smarter_auth.%I ADD CONSTRAINT %I CHECK (%I BETWEEN %L AND %L)%s',
            one[1], one[1] || '_' || one[2] || '_in_calendar', one[2], first, last,
            CASE one[1] WHEN 'audit_event' THEN ' NOT VALID' END);
    END LOOP;
END
$$;
