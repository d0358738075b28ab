/** One tab holds the link; a second one would displace it at the relay, and both would fight for the route for ever. */

const LOCK = "happy-link";
/** A page that is being reloaded may have the lock for a moment longer than it lives. */
const PATIENCE_MS = 1_000;

/** Where the link is: here, in another tab, or here as far as one can know, because the browser has no locks. */
export type Hold = "held" | "elsewhere" | "unknown";

/**
 * Takes the lock and keeps it for the life of this tab.
 * @param takeOver Take it from the tab that has it.
 * @param lost Called when another tab has taken it over.
 */
export function holdLink(takeOver: boolean, lost: () => void): Promise<Hold> {
  // Typed as always there, and still missing in older browsers.
  const locks = navigator.locks as LockManager | undefined;
  if (!locks) return Promise.resolve("unknown");
  return new Promise((resolve, reject) => {
    let held = false;
    const patience = AbortSignal.timeout(PATIENCE_MS);
    locks
      .request(LOCK, takeOver ? { steal: true } : { signal: patience }, () => {
        held = true;
        resolve("held");
        // Never settles while the lock is ours; the browser frees it when the tab dies.
        return new Promise<void>(() => undefined);
      })
      .catch((error: unknown) => {
        if (held) lost();
        else if (patience.aborted && !takeOver) resolve("elsewhere");
        else reject(error);
      });
  });
}
