-- What was counted goes; when a token was used last stays, as it did before.

DROP FUNCTION smarter_auth.write_usage(uuid, interval, text[], text[], uuid[], text[], text[], bigint[], bytea[]),
    smarter_auth.drop_old_usage(), smarter_auth.make_usage_partition(text, timestamptz);

DROP TABLE smarter_auth.usage_minute, smarter_auth.usage_hour, smarter_auth.usage_day, smarter_auth.usage_series,
    smarter_auth.usage_batch;

DELETE FROM smarter_auth.runtime_privilege
 WHERE privilege LIKE '%smarter_auth.write_usage(%' OR privilege LIKE '%smarter_auth.drop_old_usage(%'
    OR privilege LIKE '%smarter_auth.usage_series%';
