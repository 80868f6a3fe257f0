// Checked by the compiler, never run: the library's types as an application uses them.

import { Tidegate } from 'tidegate-client';
import { TidegateProvider, useGroup, useGroupData, useMessages, useNewTidegate, useTidegate } from 'tidegate-client/react';
import { canShare, SharedTidegate } from 'tidegate-client/tabs';
import * as vue from 'tidegate-client/vue';
import { ref } from 'vue';

type Row = { key: string; value: number };

export function App() {
  const client: Tidegate | null = useNewTidegate(() => new SharedTidegate('/ws-notifications/', { client: 'alice' }));
  const { state, reason } = useTidegate();
  const { joined, left } = useGroup<Row>('news', ({ data }) => data.key.length);
  const rows = useGroupData<Record<string, number>, Row>('rows', {
    load: async () => ({ data: {}, position: { epoch: 'e', offset: 1 } }),
    apply: (all, { data }) => ({ ...all, [data.key]: data.value }),
    initial: {},
  });
  const none = useGroupData<number[]>(null, { load: () => ({ data: [] }), apply: (all) => all });
  // @ts-expect-error: without `initial` there may be none yet
  none.data.length;
  const keys: string[] = useMessages<Row>('news', { limit: 10 }).map(({ data }) => data.key);
  return <TidegateProvider client={client}>{[state, reason?.word, joined, left, rows.data.a, keys, canShare()]}</TidegateProvider>;
}

export function setup() {
  const name = ref<string | null>('news');
  const client = vue.useNewTidegate(() => new Tidegate('/ws-notifications/'));
  const { joined } = vue.useGroup<Row>(name, { onMessage: ({ data }) => data.key, onLeft: (reason) => reason }, client);
  const { data, ready } = vue.useGroupData<Row[], Row>(() => name.value, {
    load: async () => ({ data: [] }),
    apply: (rows, message) => [...rows, message.data],
    initial: [],
  });
  // @ts-expect-error: read only
  joined.value = true;
  return [data.value[0]?.key, ready.value, vue.useMessages('news').value.length, vue.useTidegate().state.value];
}
