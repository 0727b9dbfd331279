// One subscription for each ending that a file of rows may have.
param topicName string
param accountId string
param deadLetterContainer string
param jobsQueueId string

resource topic 'Microsoft.EventGrid/systemTopics@2025-02-15' existing = {
  name: topicName
}

// No filter on the call that wrote the blob: one that Azure adds would be lost without a word.
resource announcements 'Microsoft.EventGrid/systemTopics/eventSubscriptions@2025-02-15' = [
  for ending in ['jsonl', 'ndjson']: {
    parent: topic
    name: 'prompts-${ending}'
    properties: {
      eventDeliverySchema: 'CloudEventSchemaV1_0'
      deliveryWithResourceIdentity: {
        identity: { type: 'SystemAssigned' }
        destination: {
          endpointType: 'ServiceBusQueue'
          properties: { resourceId: jobsQueueId }
        }
      }
      deadLetterWithResourceIdentity: {
        identity: { type: 'SystemAssigned' }
        deadLetterDestination: {
          endpointType: 'StorageBlob'
          properties: {
            resourceId: accountId
            blobContainerName: deadLetterContainer
          }
        }
      }
      filter: {
        includedEventTypes: ['Microsoft.Storage.BlobCreated']
        subjectBeginsWith: '/blobServices/default/containers/prompts/'
        subjectEndsWith: '.${ending}'
      }
      retryPolicy: {
        maxDeliveryAttempts: 30
        eventTimeToLiveInMinutes: 1440
      }
    }
  }
]
