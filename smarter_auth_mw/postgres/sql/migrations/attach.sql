-- Attach the Smarter platform in this database, or update an earlier attachment: generate our functions from the platform's
-- current tables, and create our triggers on them. Its columns and rows are not changed. The session's role must be able to
-- grant the privileges that we need; the rest runs as our role.

-- Statements queue behind a lock that waits, so do not wait long. The command can be run again.
SET LOCAL lock_timeout = '5s';

SET LOCAL ROLE NONE;

SELECT pg_catalog.set_config('smarter_auth.schema', coalesce((
       SELECT nspname FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace ON pg_namespace.oid = relnamespace
        WHERE pg_class.oid = to_regclass('knox_authtoken')), ''), true);

SET LOCAL ROLE smarter_auth;

-- Find the platform's tables, their generation and era, and the columns that we need.
DO $$
DECLARE
    platform name := nullif(current_setting('smarter_auth.schema'), '');
    gone text;
BEGIN
    SELECT coalesce(platform, platform_schema) INTO platform FROM smarter_auth.meta;
    IF platform IS NULL THEN
        RAISE EXCEPTION 'There is no Smarter platform in this database: no table knox_authtoken.' USING
            ERRCODE = 'no_data_found', HINT = 'Set SMARTER_AUTH_DATABASE_URL to its database.'
            ' If its tables are not in the schema public, add ?search_path=SCHEMA to the URL.';
    END IF;
    UPDATE smarter_auth.meta SET layout = 'smarter', platform_schema = platform;
    DELETE FROM smarter_auth.platform_table;
    INSERT INTO smarter_auth.platform_table (relation, part, kind, columns)
    SELECT wanted.relation, wanted.part, wanted.kind, wanted.columns || ARRAY(
           SELECT attname FROM pg_catalog.pg_attribute
            WHERE attrelid = to_regclass(format('%I.%I', platform, wanted.relation))
              AND attname = ANY (wanted.of_an_era) AND NOT attisdropped ORDER BY attname)
      FROM (VALUES
           ('knox_authtoken', 'tokens', NULL, '{digest,token_key,created,user_id,expiry}'::name[], '{}'::name[]),
           ('drf_smarterauthtoken', 'keys', NULL,
            '{authtoken_ptr_id,key_id,name,description,is_active,last_used_at,created_at,updated_at}', '{user_profile_id}'),
           ('auth_user', 'users', NULL, '{id,username,is_active,is_staff,is_superuser}', '{}'),
           ('account_userprofile', 'profiles', NULL, '{id,account_id,user_id}', '{}'),
           ('account_account', 'accounts', NULL, '{id,account_number}', '{}'),
           ('llm_client_llmclient', 'bots', 'llm_client', '{id,name,custom_domain_id}', '{account_id,user_profile_id}'),
           ('llm_client_llmclientapikey', 'bindings', 'llm_client', '{api_key_id,llm_client_id}', '{}'),
           ('llm_client_llmclientcustomdomain', 'domains', 'llm_client', '{id,domain_name,is_verified}', '{}'),
           ('chatbot_chatbot', 'bots', 'chatbot', '{id,name,custom_domain_id}', '{account_id,user_profile_id}'),
           ('chatbot_chatbotapikey', 'bindings', 'chatbot', '{api_key_id,chatbot_id}', '{}'),
           ('chatbot_chatbotcustomdomain', 'domains', 'chatbot', '{id,domain_name,is_verified}', '{}')
           ) AS wanted (relation, part, kind, columns, of_an_era)
     WHERE wanted.kind IS NULL OR to_regclass(format('%I.%I', platform, CASE wanted.kind
               WHEN 'chatbot' THEN 'chatbot_chatbotapikey' ELSE 'llm_client_llmclientapikey' END)) IS NOT NULL;
    -- If a bot has an owner, only the owner determines its account.
    UPDATE smarter_auth.platform_table SET columns = array_remove(columns, 'account_id')
     WHERE part = 'bots' AND 'user_profile_id' = ANY (columns);
    SELECT string_agg(part, ', ') INTO gone FROM (
        SELECT smarter_auth.platform_gone() UNION ALL
        SELECT relation || '.user_profile_id' FROM smarter_auth.platform_table
         WHERE part = 'bots' AND NOT columns && '{account_id,user_profile_id}') AS missing (part);
    IF gone IS NOT NULL OR NOT EXISTS (SELECT FROM smarter_auth.platform_table WHERE kind IS NOT NULL) THEN
        RAISE EXCEPTION 'The tables in % are not those of a Smarter platform that this release knows. Missing: %.',
            platform, coalesce(gone, 'llm_client_llmclientapikey, chatbot_chatbotapikey')
            USING ERRCODE = 'no_data_found', HINT = 'Upgrade smarter_auth_mw, or detach it: smarter-auth db detach';
    END IF;
    PERFORM set_config('smarter_auth.schema', platform, true), set_config('smarter_auth.grants', (
        SELECT string_agg(format(E'GRANT %s ON %I.%I TO smarter_auth WITH GRANT OPTION', privileges, platform, relation), E';\n'
                          ORDER BY relation)
          FROM (SELECT relation, concat_ws(', ', format('SELECT (%s)', array_to_string(columns, ', ')), 'TRIGGER',
                       CASE part WHEN 'keys' THEN 'UPDATE (last_used_at)' END) AS privileges
                  FROM smarter_auth.platform_table) AS asked), true),
        set_config('smarter_auth.lacks', coalesce((
        SELECT string_agg(relation::text, ', ') FROM smarter_auth.platform_table AS asked
         WHERE NOT has_table_privilege('smarter_auth', format('%I.%I', platform, relation), 'TRIGGER')
            OR EXISTS (SELECT FROM unnest(columns) AS wanted WHERE NOT has_column_privilege(
                       'smarter_auth', format('%I.%I', platform, relation), wanted::text, 'SELECT WITH GRANT OPTION'))
            OR (part = 'keys' AND NOT has_column_privilege(
                'smarter_auth', format('%I.%I', platform, relation), 'last_used_at', 'UPDATE'))), ''), true);
END
$$;

SET LOCAL ROLE NONE;

-- Grant our role the columns that it reads, the one that it writes, and triggers. The tables' owner can do so; for other roles,
-- the error contains the statements.
DO $$
DECLARE
    platform CONSTANT name := current_setting('smarter_auth.schema');
    refused text;
BEGIN
    IF NOT has_schema_privilege('smarter_auth', platform, 'USAGE') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO smarter_auth WITH GRANT OPTION', platform);
    END IF;
    IF current_setting('smarter_auth.lacks') <> '' THEN
        EXECUTE current_setting('smarter_auth.grants');
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE EXCEPTION 'The role % may not grant what is needed on: %.', quote_ident(current_user), current_setting('smarter_auth.lacks')
        USING ERRCODE = 'insufficient_privilege',
              HINT = E'The owner of these tables runs, once:\n' || current_setting('smarter_auth.grants') || ';';
END
$$;

SET LOCAL ROLE smarter_auth;

-- Create our functions over the platform's tables. In the templates, {…} is replaced by the names of its era and generation.
DO $$
DECLARE
    platform CONSTANT name := current_setting('smarter_auth.schema');
    keys_have_profiles CONSTANT boolean := EXISTS (
        SELECT FROM smarter_auth.platform_table WHERE part = 'keys' AND 'user_profile_id' = ANY (columns));
    known record;
    made text;
    resources text[] := '{}';
    bindings text[] := '{}';
    lookups text[] := '{}';
    domains text[] := '{}';
    names text[] := '{}';
    protected text[] := '{}';
    bound text[] := '{}';
    -- Compare as text: an operator for varchar that another role created would take precedence. OFFSET 0 makes the planner
    -- look up the name first and then the bot, because an account may have very many users and bots.
    is_admin CONSTANT text := $sql$
        NOT EXISTS (
            SELECT FROM {schema}.account_userprofile AS other JOIN {schema}.auth_user ON auth_user.id = other.user_id
             WHERE other.account_id = bot.account_id AND (auth_user.is_staff OR auth_user.is_superuser)
               AND (other.id < bot.profile_id OR NOT bot.is_staff))$sql$;
    resource CONSTANT text := $sql$
        SELECT bot.id::pg_catalog.text, coalesce(nullif(account.account_number::pg_catalog.text, ''), '#' || account.id, '#'),
               EXISTS (
                   SELECT FROM smarter_auth.lost_binding AS lost
                    WHERE lost.kind = '{kind}' AND lost.ref = bot.id::pg_catalog.text
                      AND (lost.is_certain OR EXISTS (
                           SELECT FROM smarter_auth.lost_token AS token
                            WHERE token.digest = lost.digest AND token.tx = lost.tx))
                      AND NOT EXISTS (
                           SELECT FROM smarter_auth.lost_binding AS later
                            WHERE later.kind = lost.kind AND later.ref = lost.ref AND later.id > lost.id
                              AND later.tx <> lost.tx AND NOT later.is_certain
                              AND pg_catalog.pg_visible_in_snapshot(lost.tx, later.seen)
                              AND NOT EXISTS (
                                  SELECT FROM smarter_auth.lost_token AS token
                                   WHERE token.digest = later.digest AND token.tx = later.tx))),
               ARRAY['bindings:{kind}:' || bot.id, 'kind:{kind}', 'account:#' || account.id{profile_source}]
          FROM {schema}.{bots} AS bot
          {account_of_bot}
         WHERE $1 = '{kind}' AND bot.id = smarter_auth.as_id($2)$sql$;
    token CONSTANT text := $sql$
               coalesce(key.key_id::pg_catalog.text, '00000000-0000-0000-0000-000000000000'),
               coalesce(key.name::pg_catalog.text, ''), {account_of_key}, coalesce(key.is_active, false), false,
               coalesce(owner.is_active, false),
               CASE WHEN knox.digest::pg_catalog.text ~ '^[0-9a-f]{128}$'
                    THEN pg_catalog.decode(knox.digest::pg_catalog.text, 'hex') ELSE '' END,
               coalesce(pg_catalog.left(knox.token_key::pg_catalog.text, 15), ''),
               coalesce(extract(epoch FROM knox.expiry), 'infinity')::pg_catalog.float8,
               ARRAY['key:' || pg_catalog.left({digest}::pg_catalog.text, 32),
                     'owner:' || coalesce(knox.user_id::pg_catalog.text, '') {key_sources}]$sql$;
    token_joins CONSTANT text := $sql$
          LEFT JOIN {schema}.drf_smarterauthtoken AS key ON key.authtoken_ptr_id::pg_catalog.text = {digest}::pg_catalog.text
          LEFT JOIN {schema}.knox_authtoken AS knox ON knox.digest::pg_catalog.text = {digest}::pg_catalog.text
          LEFT JOIN {schema}.auth_user AS owner ON owner.id = knox.user_id$sql$;
    name_look_up CONSTANT text := $sql$
        SELECT bot.id::pg_catalog.text
          FROM (
               SELECT account.id AS account_id, alias.row_id
                 FROM {schema}.account_account AS account
                 JOIN smarter_auth.platform_alias AS alias
                   ON alias.kind = '{kind}' AND alias.form = 'name' AND alias.value = {values} AND alias.account_id {is_account}
                WHERE $1 = '{kind}' AND $2 = '{form}' AND account.account_number::pg_catalog.text = $3
               OFFSET 0) AS claim
         CROSS JOIN LATERAL (
               SELECT bot.id, bot.name, {owned}
                 FROM {schema}.{bots} AS bot
                      {owner_of_bot}
                WHERE bot.id = claim.row_id
               OFFSET 0) AS bot
         WHERE bot.account_id = claim.account_id AND {is_it}$sql$;
BEGIN
    FOR known IN
        SELECT bots.kind, bots.relation AS bots, bindings.relation AS bindings, domains.relation AS domains,
               CASE bots.kind WHEN 'chatbot' THEN 'chatbot_id' ELSE 'llm_client_id' END AS leads_to,
               'user_profile_id' = ANY (bots.columns) AS has_owner
          FROM smarter_auth.platform_table AS bots
          JOIN smarter_auth.platform_table AS bindings ON bindings.kind = bots.kind AND bindings.part = 'bindings'
          JOIN smarter_auth.platform_table AS domains ON domains.kind = bots.kind AND domains.part = 'domains'
         WHERE bots.part = 'bots'
    LOOP
        made := replace(resource, '{account_of_bot}', CASE WHEN known.has_owner THEN $sql$
          LEFT JOIN {schema}.account_userprofile AS profile ON profile.id = bot.user_profile_id
          LEFT JOIN {schema}.account_account AS account ON account.id = profile.account_id$sql$ ELSE $sql$
          LEFT JOIN {schema}.account_account AS account ON account.id = bot.account_id$sql$ END);
        made := replace(made, '{profile_source}', CASE WHEN known.has_owner THEN $sql$, 'profile:' || profile.id$sql$ ELSE '' END);
        resources := resources || replace(replace(made, '{kind}', known.kind), '{bots}', quote_ident(known.bots));
        made := 'SELECT' || token || $sql$
          FROM {schema}.{bindings} AS binding$sql$ || token_joins || CASE WHEN keys_have_profiles THEN $sql$
          LEFT JOIN {schema}.account_userprofile AS profile ON profile.id = key.user_profile_id
          LEFT JOIN {schema}.account_account AS account ON account.id = profile.account_id$sql$ ELSE $sql$
          LEFT JOIN {schema}.{bots} AS bot ON bot.id = binding.{leads_to}
          {profile_of_bot}
          LEFT JOIN {schema}.account_account AS account ON account.id = {account_id}
           AND EXISTS (SELECT FROM {schema}.account_userprofile AS own
                        WHERE own.user_id = knox.user_id AND own.account_id = {account_id})$sql$ END || $sql$
         WHERE $1 = '{kind}' AND binding.{leads_to} = smarter_auth.as_id($2)$sql$;
        made := replace(made, '{profile_of_bot}', CASE WHEN known.has_owner THEN
            'LEFT JOIN {schema}.account_userprofile AS profile ON profile.id = bot.user_profile_id' ELSE '' END);
        made := replace(made, '{account_id}', CASE WHEN known.has_owner THEN 'profile.account_id' ELSE 'bot.account_id' END);
        bindings := bindings || replace(replace(replace(replace(replace(made, '{digest}', 'binding.api_key_id'),
            '{kind}', known.kind), '{bots}', quote_ident(known.bots)),
            '{bindings}', quote_ident(known.bindings)), '{leads_to}', known.leads_to);
        FOR made IN
            SELECT replace(replace(replace(replace(replace(replace(name_look_up,
                       '{form}', form), '{values}', asked), '{is_it}', is_it), '{is_account}', is_account),
                       '{owner_of_bot}', CASE WHEN known.has_owner THEN $sql$
                 JOIN {schema}.account_userprofile AS profile ON profile.id = bot.user_profile_id
                 JOIN {schema}.auth_user AS owner ON owner.id = profile.user_id$sql$ ELSE '' END),
                       '{owned}', CASE WHEN known.has_owner THEN
                       'profile.account_id, profile.id AS profile_id, owner.username, owner.is_staff OR owner.is_superuser AS is_staff'
                       ELSE 'bot.account_id' END)
              FROM (VALUES
                   ('name', 'smarter_auth.host_label($4)', $sql$pg_catalog.replace(bot.name::pg_catalog.text, '_', '-') = $4$sql$),
                   ('label', CASE WHEN known.has_owner THEN 'ANY (smarter_auth.label_heads($4))' ELSE '$4' END,
                    CASE WHEN known.has_owner THEN $sql$(
                         smarter_auth.host_label(bot.name || '-' || bot.username) = $4
                         OR (smarter_auth.host_label(bot.name) = $4 AND$sql$ || is_admin || '))'
                    ELSE 'smarter_auth.host_label(bot.name) = $4' END)
                   ) AS forms (form, asked, is_it)
             CROSS JOIN (VALUES ('= account.id'), ('IS NULL')) AS accounts (is_account)
        LOOP
            lookups := lookups || replace(replace(made, '{kind}', known.kind), '{bots}', quote_ident(known.bots));
        END LOOP;
        lookups := lookups || replace(replace(replace($sql$
        SELECT bot.id::pg_catalog.text
          FROM smarter_auth.platform_alias AS alias
          JOIN {schema}.{domains} AS domain ON domain.id = alias.row_id
          JOIN {schema}.{bots} AS bot ON bot.custom_domain_id = domain.id
         WHERE $1 = '{kind}' AND $2 = 'domain' AND alias.kind = '{kind}' AND alias.form = 'domain' AND alias.value = $4
           AND alias.account_id = 0 AND domain.is_verified
           AND pg_catalog.rtrim(pg_catalog.lower(domain.domain_name::pg_catalog.text), '.') = $4$sql$,
            '{kind}', known.kind), '{bots}', quote_ident(known.bots)), '{domains}', quote_ident(known.domains));
        domains := domains || format($sql$
        SELECT DISTINCT pg_catalog.rtrim(pg_catalog.lower(domain.domain_name::pg_catalog.text), '.'), %1$L
          FROM {schema}.%3$I AS domain JOIN {schema}.%2$I AS bot ON bot.custom_domain_id = domain.id
         WHERE domain.is_verified$sql$, known.kind, known.bots, known.domains);
        names := names || format($sql$
        SELECT bot.name::pg_catalog.text,
               CASE WHEN domain.is_verified THEN pg_catalog.rtrim(pg_catalog.lower(domain.domain_name::pg_catalog.text), '.') END
          FROM {schema}.%2$I AS bot LEFT JOIN {schema}.%3$I AS domain ON domain.id = bot.custom_domain_id
         WHERE $1 = %1$L AND bot.id = smarter_auth.as_id($2)$sql$, known.kind, known.bots, known.domains);
        protected := protected || format($sql$
        SELECT DISTINCT %1$L::pg_catalog.text, binding.%3$I::pg_catalog.text FROM {schema}.%2$I AS binding
        UNION SELECT kind, ref FROM smarter_auth.lost_binding WHERE kind = %1$L$sql$,
            known.kind, known.bindings, known.leads_to);
        bound := bound || format($sql$
               ARRAY(SELECT DISTINCT %1$L || ':' || binding.%3$I FROM {schema}.%2$I AS binding
                      WHERE binding.api_key_id::pg_catalog.text = key.authtoken_ptr_id::pg_catalog.text ORDER BY 1)$sql$,
            known.kind, known.bindings, known.leads_to);
    END LOOP;
    FOR known IN
        SELECT * FROM (VALUES
            ('platform_resource(kind text, lookup text)', 'ref text, account text, is_latched boolean, sources text[]',
             array_to_string(resources, ' UNION ALL ')),
            ('platform_bindings(kind text, lookup text)', 'token', array_to_string(bindings, ' UNION ALL ')),
            ('platform_token(digest bytea)', 'token', 'SELECT' || replace(token, '{digest}', 'knox.digest') || $sql$
          FROM {schema}.knox_authtoken AS knox
          JOIN {schema}.drf_smarterauthtoken AS key ON key.authtoken_ptr_id::pg_catalog.text = knox.digest::pg_catalog.text
          LEFT JOIN {schema}.auth_user AS owner ON owner.id = knox.user_id $sql$
             || CASE WHEN keys_have_profiles THEN $sql$
          LEFT JOIN {schema}.account_userprofile AS profile ON profile.id = key.user_profile_id
          LEFT JOIN {schema}.account_account AS account ON account.id = profile.account_id$sql$ ELSE $sql$
          LEFT JOIN LATERAL (SELECT NULL::pg_catalog.text AS account_number, NULL::pg_catalog.int8 AS id) AS account ON true$sql$ END
             || $sql$ WHERE knox.digest::pg_catalog.text = pg_catalog.encode($1, 'hex')$sql$),
            ('platform_lookups(kind text, form text, account text, value text)', 'lookup text',
             'SELECT DISTINCT found.lookup FROM (' || array_to_string(lookups, ' UNION ALL ') || ') AS found (lookup)'),
            ('platform_domains()', 'domain text, kind text', array_to_string(domains, ' UNION ')),
            ('platform_name(kind text, lookup text)', 'name text, domain text', array_to_string(names, ' UNION ALL ')),
            ('platform_protected()', 'kind text, ref text', array_to_string(protected, ' UNION ')),
            ('platform_keys(key_ids uuid[])',
             'key_id uuid, account text, name text, description text, is_active boolean, expires_at timestamptz,'
             ' created_at timestamptz, updated_at timestamptz, bindings text[], token_key text,'
             ' token_created_at timestamptz, last_used_at timestamptz, digest bytea',
             $sql$
        SELECT key.key_id::pg_catalog.uuid, coalesce(nullif(account.account_number::pg_catalog.text, ''), '#' || account.id, '#'),
               key.name::pg_catalog.text, coalesce(key.description::pg_catalog.text, ''),
               key.is_active AND coalesce(owner.is_active, false), knox.expiry,
               coalesce(key.created_at, knox.created), coalesce(key.updated_at, key.created_at, knox.created),
               $sql$ || array_to_string(bound, ' || ') || $sql$,
               pg_catalog.left(knox.token_key::pg_catalog.text, 15), knox.created, key.last_used_at,
               CASE WHEN knox.digest::pg_catalog.text ~ '^[0-9a-f]{128}$'
                    THEN pg_catalog.decode(knox.digest::pg_catalog.text, 'hex') ELSE '' END
          FROM {schema}.drf_smarterauthtoken AS key
          JOIN {schema}.knox_authtoken AS knox ON knox.digest::pg_catalog.text = key.authtoken_ptr_id::pg_catalog.text
          LEFT JOIN {schema}.auth_user AS owner ON owner.id = knox.user_id
          LEFT JOIN LATERAL ($sql$ || CASE WHEN keys_have_profiles THEN $sql$
               SELECT account.id, account.account_number
                 FROM {schema}.account_userprofile AS profile
                 JOIN {schema}.account_account AS account ON account.id = profile.account_id
                WHERE profile.id = key.user_profile_id$sql$ ELSE $sql$
               SELECT account.id, account.account_number
                 FROM {schema}.account_userprofile AS profile
                 JOIN {schema}.account_account AS account ON account.id = profile.account_id
                WHERE profile.user_id = knox.user_id
                ORDER BY profile.id LIMIT 1$sql$ END || $sql$) AS account ON true
         WHERE ($1 IS NULL OR key.key_id::pg_catalog.uuid = ANY ($1))$sql$)
        ) AS functions (signature, answers, body)
    LOOP
        made := replace(known.body, '{account_of_key}', CASE WHEN keys_have_profiles THEN
            $sql$coalesce(nullif(account.account_number::pg_catalog.text, ''), '#' || account.id, '')$sql$ ELSE
            $sql$coalesce(nullif(account.account_number::pg_catalog.text, ''), '#' || account.id, '')$sql$ END);
        made := replace(made, '{key_sources}', CASE WHEN keys_have_profiles THEN
            $sql$, 'profile:' || profile.id, 'account:#' || account.id$sql$ ELSE '' END);
        EXECUTE format('CREATE OR REPLACE FUNCTION smarter_auth.%s RETURNS TABLE (%s) LANGUAGE sql STABLE AS %L',
            known.signature, CASE known.answers WHEN 'token' THEN
                'key_id text, key_name text, key_account text, is_active boolean, is_revoked boolean,'
                ' owner_is_active boolean, digest bytea, token_key text, expires_at_s float8, key_sources text[]'
                ELSE known.answers END,
            replace(made, '{schema}', quote_ident(platform)));
    END LOOP;
END
$$;

-- Create our triggers. Their parameters are trigger arguments, which identify triggers of earlier releases.
DO $$
DECLARE
    platform CONSTANT name := current_setting('smarter_auth.schema');
    kinds CONSTANT text[] := ARRAY(SELECT kind FROM smarter_auth.platform_table WHERE part = 'bots' ORDER BY kind);
    keys_have_profiles CONSTANT boolean := EXISTS (
        SELECT FROM smarter_auth.platform_table WHERE part = 'keys' AND 'user_profile_id' = ANY (columns));
    known record;
    made record;
    leads_to text;
    owner text;
    made_on text;
    may_replace CONSTANT boolean := current_setting('server_version_num')::integer >= 140000;
BEGIN
    DELETE FROM smarter_auth.platform_trigger;
    FOR known IN SELECT * FROM smarter_auth.platform_table LOOP
        leads_to := CASE known.kind WHEN 'chatbot' THEN 'chatbot_id' ELSE 'llm_client_id' END;
        owner := CASE WHEN 'user_profile_id' = ANY (known.columns) THEN 'user_profile_id' ELSE 'account_id' END;
        INSERT INTO smarter_auth.platform_trigger (relation, name, timing, event, function, arguments)
        SELECT known.relation, 'smarter_auth_note_' || lower(event), 'AFTER', event, 'note_platform', rules
          FROM (
               SELECT event, array_agg(argument ORDER BY rule COLLATE "C", place) AS rules
                 FROM (VALUES
                      ('bots', 'INSERT UPDATE DELETE', ARRAY['id,' || owner, 'resource:' || known.kind || ':{id}', 'kind:' || known.kind]),
                      ('bots', 'INSERT UPDATE DELETE', ARRAY['id,name,custom_domain_id,' || owner, 'directory:' || known.kind, '*']),
                      ('bindings', 'INSERT UPDATE DELETE',
                       ARRAY['api_key_id,' || leads_to, 'bindings:' || known.kind || ':{' || leads_to || '}', 'kind:' || known.kind]),
                      ('domains', 'INSERT UPDATE DELETE', ARRAY['id,domain_name,is_verified', 'directory:' || known.kind, '*']),
                      ('tokens', 'UPDATE DELETE', ARRAY['digest,token_key,user_id,expiry', 'key:{digest}', 'owner:{user_id}']),
                      ('keys', 'INSERT UPDATE DELETE', ARRAY[
                          'authtoken_ptr_id,key_id,name,is_active' || CASE WHEN keys_have_profiles THEN ',user_profile_id' ELSE '' END,
                          'key:{authtoken_ptr_id}', CASE WHEN keys_have_profiles THEN 'profile:{user_profile_id}' ELSE '*' END]),
                      ('users', 'UPDATE DELETE', ARRAY['id,is_active', 'owner:{id}', '*']),
                      ('users', 'UPDATE DELETE', ARRAY['id,username,is_staff,is_superuser', 'directory:{each}', '*']),
                      ('profiles', 'INSERT UPDATE DELETE', ARRAY['id,account_id,user_id', 'profile:{id}', 'account:#{account_id}']),
                      ('profiles', 'INSERT UPDATE DELETE', ARRAY['id,account_id,user_id', 'owner:{user_id}', 'account:#{account_id}']),
                      ('profiles', 'INSERT UPDATE DELETE', ARRAY['id,account_id,user_id', 'directory:{each}', '*']),
                      ('accounts', 'UPDATE DELETE', ARRAY['id,account_number', 'account:#{id}', '*']),
                      ('accounts', 'INSERT UPDATE DELETE', ARRAY['id,account_number', 'directory:{each}', '*'])
                      ) AS rules (part, events, triple)
                CROSS JOIN LATERAL unnest(string_to_array(events, ' ')) AS event
                CROSS JOIN LATERAL (
                      SELECT triple[1:1] || replace(triple[2], '{each}', kind) || triple[3:3] AS arguments, triple[1] || triple[2] || kind AS rule
                        FROM unnest(CASE WHEN triple[2] LIKE '%{each}' THEN kinds ELSE '{""}' END) AS kind) AS each_kind
                CROSS JOIN LATERAL unnest(arguments) WITH ORDINALITY AS parts (argument, place)
                WHERE rules.part = known.part
                GROUP BY event
               UNION ALL SELECT 'TRUNCATE', '{}'
               ) AS ruled;
        INSERT INTO smarter_auth.platform_trigger (relation, name, timing, event, function, arguments)
        SELECT known.relation, 'smarter_auth_' || function || '_' || lower(event), timing, event, function, arguments
          FROM (VALUES
               ('bots', 'AFTER', 'INSERT', 'keep_platform_names', ARRAY[known.kind, owner]),
               ('bots', 'AFTER', 'UPDATE', 'keep_platform_names', ARRAY[known.kind, owner]),
               ('domains', 'AFTER', 'INSERT', 'keep_platform_domains', ARRAY[known.kind]),
               ('domains', 'AFTER', 'UPDATE', 'keep_platform_domains', ARRAY[known.kind]),
               ('profiles', 'AFTER', 'UPDATE', 'keep_moved_profiles', '{}'),
               ('bindings', 'AFTER', 'DELETE', 'keep_lost_bindings', ARRAY[known.kind, leads_to]),
               ('bindings', 'BEFORE', 'TRUNCATE', 'keep_truncated_bindings', ARRAY[known.kind, leads_to]),
               ('tokens', 'AFTER', 'DELETE', 'keep_lost_tokens', ARRAY['digest']),
               ('keys', 'AFTER', 'DELETE', 'keep_lost_tokens', ARRAY['authtoken_ptr_id'])
               ) AS keeping (part, timing, event, function, arguments)
         WHERE keeping.part = known.part;
    END LOOP;
    FOR made IN
        SELECT asked.*, pg_trigger.oid AS is_there
          FROM smarter_auth.platform_trigger AS asked
          LEFT JOIN pg_catalog.pg_trigger
            ON tgrelid = to_regclass(format('%I.%I', platform, asked.relation)) AND tgname = asked.name
           AND tgargs = coalesce(decode((SELECT string_agg(encode(convert_to(argument, 'UTF8'), 'hex') || '00', '' ORDER BY place)
                                           FROM unnest(asked.arguments) WITH ORDINALITY AS given (argument, place)), 'hex'), '')
    LOOP
        CONTINUE WHEN made.is_there IS NOT NULL;
        IF NOT may_replace THEN
            EXECUTE format('DROP TRIGGER IF EXISTS %I ON %I.%I', made.name, platform, made.relation);
        END IF;
        EXECUTE format(CASE WHEN may_replace THEN 'CREATE OR REPLACE' ELSE 'CREATE' END || ' TRIGGER %I %s %s ON %I.%I %s FOR EACH STATEMENT EXECUTE FUNCTION smarter_auth.%I(%s)',
            made.name, made.timing, made.event, platform, made.relation,
            CASE made.event WHEN 'INSERT' THEN 'REFERENCING NEW TABLE AS fresh'
                            WHEN 'DELETE' THEN 'REFERENCING OLD TABLE AS stale'
                            WHEN 'UPDATE' THEN 'REFERENCING OLD TABLE AS stale NEW TABLE AS fresh' ELSE '' END,
            made.function, (SELECT string_agg(quote_literal(argument), ', ' ORDER BY place)
                              FROM unnest(made.arguments) WITH ORDINALITY AS given (argument, place)));
    END LOOP;
    FOREACH made_on IN ARRAY ARRAY['INSERT', 'UPDATE'] LOOP
        EXECUTE format('DROP TRIGGER IF EXISTS write_platform_use_on_%s ON smarter_auth.token_use', lower(made_on));
        EXECUTE format('CREATE TRIGGER write_platform_use_on_%s AFTER %s ON smarter_auth.token_use REFERENCING NEW TABLE AS fresh'
                       ' FOR EACH STATEMENT EXECUTE FUNCTION smarter_auth.write_platform_use(%L, %L)',
                       lower(made_on), made_on, platform, 'drf_smarterauthtoken');
    END LOOP;
END
$$;

-- Add the aliases of existing rows. The triggers add those of later rows.
DO $$
DECLARE
    platform CONSTANT name := current_setting('smarter_auth.schema');
    known record;
BEGIN
    DELETE FROM smarter_auth.platform_alias AS alias
     WHERE kind NOT IN (SELECT kind FROM smarter_auth.platform_table WHERE part = 'bots');
    FOR known IN SELECT * FROM smarter_auth.platform_table WHERE part IN ('bots', 'domains') ORDER BY relation LOOP
        EXECUTE format(CASE WHEN known.part = 'domains' THEN $sql$
            INSERT INTO smarter_auth.platform_alias (kind, form, value, account_id, row_id)
            SELECT %1$L, 'domain', rtrim(lower(domain_name), '.'), 0, id FROM %2$I.%3$I WHERE domain_name <> ''
            EXCEPT SELECT kind, form, value, account_id, row_id FROM smarter_auth.platform_alias $sql$
        WHEN 'user_profile_id' = ANY (known.columns) THEN $sql$
            INSERT INTO smarter_auth.platform_alias (kind, form, value, account_id, row_id)
            SELECT %1$L, 'name', smarter_auth.host_label(bot.name), profile.account_id, bot.id
              FROM %2$I.%3$I AS bot JOIN %2$I.account_userprofile AS profile ON profile.id = bot.user_profile_id
            EXCEPT SELECT kind, form, value, account_id, row_id FROM smarter_auth.platform_alias $sql$
        ELSE $sql$
            INSERT INTO smarter_auth.platform_alias (kind, form, value, account_id, row_id)
            SELECT %1$L, 'name', smarter_auth.host_label(bot.name), bot.account_id, bot.id FROM %2$I.%3$I AS bot
            EXCEPT SELECT kind, form, value, account_id, row_id FROM smarter_auth.platform_alias $sql$ END,
            known.kind, platform, known.relation);
    END LOOP;
    DELETE FROM smarter_auth.platform_alias AS alias
     WHERE account_id IS NULL AND EXISTS (
           SELECT FROM smarter_auth.platform_alias AS other
            WHERE (other.kind, other.form, other.value, other.row_id) = (alias.kind, alias.form, alias.value, alias.row_id)
              AND other.account_id IS NOT NULL);
END
$$;

ANALYZE smarter_auth.platform_alias, smarter_auth.lost_binding, smarter_auth.lost_token;

-- Allow roles that serve to read these columns of the platform, and nothing else.
DO $$
DECLARE
    platform CONSTANT name := current_setting('smarter_auth.schema');
BEGIN
    DELETE FROM smarter_auth.privilege WHERE privilege LIKE format('%% ON %I.%%', platform)
        OR privilege LIKE 'USAGE ON SCHEMA %' AND privilege <> 'USAGE ON SCHEMA smarter_auth';
    INSERT INTO smarter_auth.privilege (grade, privilege)
    SELECT 'runtime', format('SELECT (%s) ON %I.%I', array_to_string(columns, ', '), platform, relation)
      FROM smarter_auth.platform_table;
    IF has_schema_privilege('smarter_auth', platform, 'USAGE WITH GRANT OPTION') THEN
        INSERT INTO smarter_auth.privilege (grade, privilege) VALUES ('runtime', format('USAGE ON SCHEMA %I', platform));
    END IF;
    PERFORM smarter_auth.grant_grades();
    INSERT INTO smarter_auth.change (source) VALUES ('*');
    PERFORM pg_notify('smarter_auth', '*:' || pg_current_xact_id());
END
$$;
