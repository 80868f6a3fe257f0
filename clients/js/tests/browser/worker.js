import { Tidegate } from '/clients/js/src/index.js';

const tidegate = new Tidegate(new URLSearchParams(location.search).get('gateway'), { client: 'alice' });
tidegate.group('news', ({ data }) => postMessage(data));
await tidegate.ready();
postMessage('ready');
