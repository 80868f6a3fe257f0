import vue from '@vitejs/plugin-vue'
import { defineConfig } from 'vite'

// Page, application and WebSocket share one host, as they do behind an edge, so nothing needs to be listed under `origins`.
const proxy = {
  '/orders': process.env.SERVER_URL ?? 'http://127.0.0.1:3000',
  '/ws-notifications/': { target: process.env.TIDEGATE_URL ?? 'http://127.0.0.1:8000', ws: true },
}

export default defineConfig({
  plugins: [vue()],
  resolve: { dedupe: ['vue'] }, // the library is linked from its folder, and must find the same Vue as the page
  server: { proxy },
  preview: { proxy },
})
