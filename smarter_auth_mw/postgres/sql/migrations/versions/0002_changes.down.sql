-- Without changes nothing vouches for what is cached: it lives as long as MAX_STALENESS_S, and no longer.

DROP FUNCTION smarter_auth.note_changes() CASCADE;

DROP FUNCTION smarter_auth.missing_triggers(), smarter_auth.purge_changes(interval), smarter_auth.renew_epoch(),
    smarter_auth.home();

DROP TABLE smarter_auth.change;

ALTER TABLE smarter_auth.meta DROP COLUMN horizon, DROP COLUMN home, DROP COLUMN secret;

DELETE FROM smarter_auth.runtime_privilege WHERE privilege LIKE 'EXECUTE ON FUNCTION smarter_auth.home()%';
