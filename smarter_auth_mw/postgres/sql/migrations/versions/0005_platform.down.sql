-- An attached platform is let go: its triggers go with the functions that they call.

DROP FUNCTION smarter_auth.note_platform(), smarter_auth.keep_platform_names(), smarter_auth.keep_platform_domains(),
    smarter_auth.keep_moved_profiles(), smarter_auth.keep_lost_bindings(), smarter_auth.keep_lost_tokens(),
    smarter_auth.keep_truncated_bindings(), smarter_auth.write_platform_use() CASCADE;

DROP FUNCTION smarter_auth.platform_resource(text, text), smarter_auth.platform_bindings(text, text),
    smarter_auth.platform_lookups(text, text, text, text), smarter_auth.platform_token(bytea),
    smarter_auth.platform_domains(), smarter_auth.platform_protected(), smarter_auth.platform_keys(uuid[]),
    smarter_auth.platform_missing(), smarter_auth.platform_gone(), smarter_auth.settle_platform(),
    smarter_auth.release_platform(text, text, text, text), smarter_auth.as_id(text), smarter_auth.label_heads(text),
    smarter_auth.picked(jsonb, text[]), smarter_auth.source_of(jsonb, text);

DROP TABLE smarter_auth.platform_table, smarter_auth.platform_trigger, smarter_auth.platform_alias, smarter_auth.lost_binding, smarter_auth.lost_token;

ALTER TABLE smarter_auth.meta DROP COLUMN layout, DROP COLUMN platform_schema;

DELETE FROM smarter_auth.runtime_privilege WHERE privilege LIKE '%platform%' OR privilege LIKE '%smarter_auth.as_id(%'
    OR privilege LIKE '%smarter_auth.lost_binding%';
