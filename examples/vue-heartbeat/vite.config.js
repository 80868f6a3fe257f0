import vue from '@vitejs/plugin-vue'
import { defineConfig } from 'vite'

// Page and WebSocket share one host, as they do behind an edge, so nothing needs to be listed under `origins`.
const proxy = {
  '/ws-notifications/': { target: process.env.TIDEGATE_URL ?? 'http://127.0.0.1:8000', ws: true },
}

export default defineConfig({
  plugins: [vue()],
  server: { proxy },
  preview: { proxy },
})
