import { Tidegate } from './index.js';

/** Whether tabs can share a connection here: Web Locks and BroadcastChannel, so a page of a secure context. */
export function canShare(): boolean;

/**
 * A Tidegate client that shares its connection with the other tabs of this browser that are the same client at the same
 * URL. The options of the tab that leads count for the connection: its token, its delays.
 */
export class SharedTidegate extends Tidegate {}
