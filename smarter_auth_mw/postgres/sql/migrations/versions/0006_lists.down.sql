DROP INDEX smarter_auth.audit_by_tx;

ALTER TABLE smarter_auth.audit_event DROP COLUMN tx;

CREATE INDEX audit_event_at ON smarter_auth.audit_event (at);

CREATE INDEX audit_event_resource ON smarter_auth.audit_event (kind, ref);

CREATE INDEX audit_event_key_id ON smarter_auth.audit_event (key_id);

DROP INDEX smarter_auth.audit_by_time, smarter_auth.audit_of_account, smarter_auth.audit_of_resource,
    smarter_auth.audit_of_key, smarter_auth.act_by_time, smarter_auth.act_of_account, smarter_auth.act_of_resource,
    smarter_auth.act_on_key, smarter_auth.act_by_actor;

DROP INDEX smarter_auth.key_by_name, smarter_auth.key_by_name_of_account, smarter_auth.key_by_creation,
    smarter_auth.key_by_creation_of_account, smarter_auth.key_by_expiry, smarter_auth.key_by_expiry_of_account,
    smarter_auth.key_by_revocation, smarter_auth.key_by_revocation_of_account, smarter_auth.token_by_token_key,
    smarter_auth.token_by_end, smarter_auth.token_by_end_of_account, smarter_auth.resource_of_account,
    smarter_auth.resource_open, smarter_auth.resource_open_of_account, smarter_auth.binding_of_key, smarter_auth.usage_series_by_key;

DROP TRIGGER keep_lists_on_insert ON smarter_auth.key;

DROP TRIGGER keep_lists_on_update ON smarter_auth.key;

DROP TRIGGER keep_lists_on_delete ON smarter_auth.key;

DROP TRIGGER keep_lists_on_truncate ON smarter_auth.key;

DROP TRIGGER keep_key_use_on_insert ON smarter_auth.token_use;

DROP TRIGGER keep_key_use_on_update ON smarter_auth.token_use;

DROP TABLE smarter_auth.key_label, smarter_auth.key_use;

DROP FUNCTION smarter_auth.keep_key_lists(), smarter_auth.keep_key_use(), smarter_auth.keep_label();

DELETE FROM smarter_auth.runtime_privilege WHERE privilege LIKE '%smarter_auth.key_label';
