/**
 * What must survive a reload, sealed by a key that no script can export (PROTOCOL 14). That stops a copy of the database
 * file; it does not stop a script that runs in this page, which is why the page runs nobody else's.
 */

const DATABASE = "happy";
const STORE = "vault";
const KEY = "key";

export class Vault {
  /** Writes happen one after the other, so that an older state never lands on a newer one. */
  private tail: Promise<void> = Promise.resolve();

  private constructor(
    private readonly database: IDBDatabase,
    private readonly key: CryptoKey,
  ) {}

  static async open(): Promise<Vault> {
    const database = await openDatabase();
    let key = await read<CryptoKey>(database, KEY);
    if (!key) {
      key = await crypto.subtle.generateKey({ name: "AES-GCM", length: 256 }, false, ["encrypt", "decrypt"]);
      await write(database, KEY, key);
    }
    return new Vault(database, key);
  }

  /** The record, or null when there is none. A record that cannot be opened is an error, never silently nothing. */
  async load(name: string): Promise<Uint8Array | null> {
    const sealed = await read<Sealed>(this.database, name);
    if (!sealed) return null;
    const opened = await crypto.subtle.decrypt(sealing(name, sealed.iv), this.key, sealed.bytes);
    return new Uint8Array(opened);
  }

  save(name: string, bytes: Uint8Array): Promise<void> {
    const copy = bytes.slice();
    const done = this.tail.then(async () => {
      const iv = crypto.getRandomValues(new Uint8Array(12));
      const sealed: Sealed = { iv, bytes: await crypto.subtle.encrypt(sealing(name, iv), this.key, copy) };
      copy.fill(0);
      await write(this.database, name, sealed);
    });
    this.tail = done.catch(() => undefined);
    return done;
  }

  /** Forgets everything, the sealing key too. */
  async destroy(): Promise<void> {
    await this.tail;
    this.database.close();
    await settled(indexedDB.deleteDatabase(DATABASE));
  }
}

interface Sealed {
  iv: Uint8Array<ArrayBuffer>;
  bytes: ArrayBuffer;
}

/** The name is authenticated, so that one record cannot be put in the place of another. */
function sealing(name: string, iv: Uint8Array<ArrayBuffer>): AesGcmParams {
  return { name: "AES-GCM", iv, additionalData: new TextEncoder().encode(`happy/1 vault ${name}`) };
}

function openDatabase(): Promise<IDBDatabase> {
  const request = indexedDB.open(DATABASE, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(STORE);
  return settled(request);
}

async function read<T>(database: IDBDatabase, key: string): Promise<T | undefined> {
  return settled<T | undefined>(database.transaction(STORE).objectStore(STORE).get(key));
}

function write(database: IDBDatabase, key: string, value: unknown): Promise<void> {
  // Strict: a counter that is larger at every login must not go back because the phone lost power.
  const transaction = database.transaction(STORE, "readwrite", { durability: "strict" });
  transaction.objectStore(STORE).put(value, key);
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error ?? new Error("the browser did not store the state"));
  });
}

function settled<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error("the browser's storage failed"));
  });
}
