/**
 * What must survive a reload, sealed by a key that no script can export (PROTOCOL 14). That stops a copy of the database
 * file; it does not stop a script that runs in this page, which is why the page runs nobody else's.
 *
 * A browser may lose a database, or get an old one back, and says nothing. So a trace of the newest state stands in
 * `localStorage` too, and nothing is made in the place of what should be there.
 */

const DATABASE = "happy";
const STORE = "vault";
const KEY = "key";
/** Who writes: whoever claimed the vault last. A tab that lost the lock may still have a write under way. */
const WRITER = "writer";
const TRACE = "happy-state";

/** What is stored cannot be used. The message is for a person. */
export class Unreadable extends Error {}

/** There was a state, and there is none. */
export class Vanished extends Error {}

/** Another tab has claimed the vault since; this one writes no more. */
export class Displaced extends Error {}

/** What the last stored state left beside the database. */
export function traceOf(): string | null {
  return localStorage.getItem(TRACE);
}

/** To be called when the state of this trace is stored, never before: then a trace without its state means a loss. */
export function leaveTrace(trace: string): void {
  try {
    localStorage.setItem(TRACE, trace);
  } catch {
    // The state is safe; a trace that is behind is taken for what it is.
  }
}

export class Vault {
  /** Writes happen one after the other, so that an older state never lands on a newer one. */
  private tail: Promise<void> = Promise.resolve();
  private closed = false;
  private readonly writer = crypto.randomUUID();

  private constructor(
    private readonly database: IDBDatabase,
    private readonly key: CryptoKey,
  ) {}

  /** Throws `Unreadable` or `Vanished`, and then nothing was changed. */
  static async open(): Promise<Vault> {
    const database = await openDatabase(traceOf() !== null);
    // Otherwise this page would stand in the way of one that starts anew.
    database.onversionchange = () => database.close();
    const key = (await read<CryptoKey>(database, KEY)) ?? (await firstKey(database));
    return new Vault(database, key);
  }

  /** From now on this page writes, and no other. Before it reads, so that nothing changes behind its back. */
  claim(): Promise<void> {
    return change(this.database, (store) => store.put(this.writer, WRITER));
  }

  /** The record, or null when there is none. A record that cannot be opened is an error, never silently nothing. */
  async load(name: string): Promise<Uint8Array | null> {
    const sealed = await read<Sealed>(this.database, name);
    if (!sealed) return null;
    try {
      return new Uint8Array(await crypto.subtle.decrypt(sealing(name, sealed.iv), this.key, sealed.bytes));
    } catch {
      throw new Unreadable("What this browser has stored cannot be opened with its key: it was damaged or changed.");
    }
  }

  /** Stores a record; it is there after a crash when the promise is kept. The bytes are wiped. */
  save(name: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    const done = this.tail.then(async () => {
      const iv = crypto.getRandomValues(new Uint8Array(12));
      const sealed: Sealed = { iv, bytes: await crypto.subtle.encrypt(sealing(name, iv), this.key, bytes) };
      bytes.fill(0);
      await this.write(name, sealed);
    });
    this.tail = done.catch(() => undefined);
    return done;
  }

  private async write(name: string, sealed: Sealed): Promise<void> {
    if (this.closed) throw new Displaced();
    let displaced = false;
    const written = change(this.database, (store, transaction) => {
      const holder = store.get(WRITER);
      holder.onsuccess = () => {
        displaced = holder.result !== this.writer;
        if (displaced) transaction.abort();
        else store.put(sealed, name);
      };
    });
    await written.catch((error: unknown) => {
      throw displaced ? new Displaced() : error;
    });
  }

  /** No write begins from now on. */
  close(): void {
    this.closed = true;
  }
}

/** Forgets everything, the sealing key and the trace too: only ever because a person said so. */
export async function destroyVault(vault: Vault | null): Promise<void> {
  vault?.close();
  await settled(indexedDB.deleteDatabase(DATABASE));
  localStorage.clear();
}

interface Sealed {
  iv: Uint8Array<ArrayBuffer>;
  bytes: ArrayBuffer;
}

/** The name is authenticated, so that one record cannot be put in the place of another. */
function sealing(name: string, iv: Uint8Array<ArrayBuffer>): AesGcmParams {
  return { name: "AES-GCM", iv, additionalData: new TextEncoder().encode(`happy/1 vault ${name}`) };
}

async function openDatabase(expected: boolean): Promise<IDBDatabase> {
  const request = indexedDB.open(DATABASE, 1);
  let missing = false;
  request.onupgradeneeded = () => {
    missing = expected;
    // The browser takes back the database that it has just made.
    if (missing) request.transaction?.abort();
    else request.result.createObjectStore(STORE);
  };
  try {
    return await settled(request);
  } catch (error) {
    throw missing ? new Vanished() : error;
  }
}

/** The key of a new vault. Sealed records without their key are not made worse by a second one. */
async function firstKey(database: IDBDatabase): Promise<CryptoKey> {
  if ((await settled(database.transaction(STORE).objectStore(STORE).count())) > 0) {
    throw new Unreadable("The key to what this browser has stored is gone, so it cannot be opened.");
  }
  if (traceOf() !== null) throw new Vanished();
  const key = await crypto.subtle.generateKey({ name: "AES-GCM", length: 256 }, false, ["encrypt", "decrypt"]);
  await change(database, (store) => store.add(key, KEY));
  return key;
}

async function read<T>(database: IDBDatabase, key: string): Promise<T | undefined> {
  return settled<T | undefined>(database.transaction(STORE).objectStore(STORE).get(key));
}

function change(database: IDBDatabase, act: (store: IDBObjectStore, transaction: IDBTransaction) => void): Promise<void> {
  // Strict: a counter that is larger at every login, and secrets that a machine was told to count on, must not go back
  // because the phone lost power.
  const transaction = database.transaction(STORE, "readwrite", { durability: "strict" });
  act(transaction.objectStore(STORE), transaction);
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error ?? new Error("the browser did not store it"));
  });
}

function settled<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error("the browser's storage failed"));
  });
}
