/** One tab holds the link; a second one would displace it at the relay, and both would fight for the route for ever. */

const LOCK = "happy-link";

/**
 * Takes the lock and keeps it for the life of this tab.
 * @param takeOver Take it from the tab that has it.
 * @param lost Called when another tab has taken it over.
 * @returns false when another tab has it.
 */
export function holdLink(takeOver: boolean, lost: () => void): Promise<boolean> {
  return new Promise((resolve, reject) => {
    let held = false;
    navigator.locks
      .request(LOCK, takeOver ? { steal: true } : { ifAvailable: true }, (lock) => {
        held = lock !== null;
        resolve(held);
        // Never settles while the lock is ours; the browser frees it when the tab dies.
        return held ? new Promise<void>(() => undefined) : undefined;
      })
      .catch((error: unknown) => (held ? lost() : reject(error)));
  });
}
