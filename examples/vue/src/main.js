import { Tidegate } from 'tidegate-client'
import { tidegate } from 'tidegate-client/vue'
import { createApp } from 'vue'

import App from './App.vue'

const client = new URLSearchParams(location.search).get('client') ?? 'alice'

createApp(App).use(tidegate, new Tidegate('/ws-notifications/', { client })).mount('#app')
