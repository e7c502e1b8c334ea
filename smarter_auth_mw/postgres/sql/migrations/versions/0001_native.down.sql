-- Everything goes but the version table, which Alembic still writes to. Unmigrated, we answer 503: nothing opens.

DROP TABLE smarter_auth.alias, smarter_auth.audit_event, smarter_auth.binding, smarter_auth.token_use,
    smarter_auth.token, smarter_auth.key, smarter_auth.resource, smarter_auth.meta,
    smarter_auth.runtime_privilege;

DROP FUNCTION smarter_auth.close_latch(), smarter_auth.hold_latch(), smarter_auth.keep_directory(),
    smarter_auth.host_label(text), smarter_auth.release(bigint, text, text), smarter_auth.grant_runtime(name);
