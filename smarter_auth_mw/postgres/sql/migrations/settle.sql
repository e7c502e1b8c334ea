-- A restored dump, a clone or a failed-over server is another database: caches start anew.
SELECT smarter_auth.renew_epoch() FROM smarter_auth.meta WHERE home <> smarter_auth.home();
